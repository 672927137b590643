"""Find the files of weights and adapters in a folder, and the digest of all that is loaded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import refuse_pointers_in
from cosmos_worker.storage.files import folder_content
from cosmos_worker.storage.volumes import (
    ADAPTER_FOLDER,
    adapter_name,
    sha256_of_file,
    sync_folder,
)
from cosmos_worker.weights.dcp import refuse_own_state
from cosmos_worker.weights.forms import (
    ACCEPTED,
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILES,
    LOGVAR_FILE,
    PEFT_FILES,
    SUFFIX,
    TRAINER_FILE,
    TRANSFORMER_FOLDER,
    choose_weights,
    find_adapter_name,
    list_names,
    names_below,
    others_in,
    shards_of,
)
from cosmos_worker.weights.lora_names import is_correction


def locate(path: Path) -> Path:
    """The weight file, or index of shards, or metadata of torch.distributed.checkpoint, of a file or folder.

    Raises:
        CheckpointError: none, or several of one kind.
    """
    if path.is_file():
        return path
    if path.is_dir():
        refuse_own_state(path)
    names = list_names(path) if path.is_dir() else []
    chosen = choose_weights(names, str(path)) if names else None
    if chosen is None and has_adapter(path):
        raise CheckpointError(
            f"{path}: holds a LoRA adapter and not the network that it corrects; put the network's weights into the "
            f"same folder: {ACCEPTED}"
        )
    if chosen is None:
        refuse_pointers_in(path)
        held = f" (it holds {folder_content(path)})" if path.is_dir() else ""
        names = names_below(path) if path.is_dir() else []
        raise CheckpointError(
            f"{path}: no such weight file{held}; expected one, or a folder with {ACCEPTED}{others_in(names)}"
        )
    return path / chosen


def adapter_file(folder: Path) -> Path | None:
    """The file with the LoRA corrections of a folder's weights; None if there is none, and beside a single file.

    Raises:
        CheckpointError: several.
    """
    there = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    try:
        name = find_adapter_name(there)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    return None if name is None else folder / name


def has_adapter(path: Path) -> bool:
    """True if a LoRA adapter lies in a folder, whose weights it corrects; False for a single file."""
    return any((path / name).is_file() for name in ADAPTER_FILES)


def list_files(path: Path) -> list[Path]:
    """All files that tensors are read from: the weights, or the index and its shards, and what lies beside.

    Raises like :func:`locate`.
    """
    file = locate(path)
    files = [file, *(file.parent / name for name in shards_of(file))]
    beside = file.parent.parent / LOGVAR_FILE
    if file.parent.name == TRANSFORMER_FOLDER and beside.is_file():
        files.append(beside)
    adapter = adapter_file(path)
    if adapter is not None:
        files.append(adapter)
        if adapter.name in PEFT_FILES:
            files.append(path / ADAPTER_CONFIG_FILE)
    return files


def refuse_unused_corrections(folder: Path, used: list[Path]) -> None:
    """Refuse LoRA corrections in a folder of weights that would not be applied.

    Args:
        folder: of the weights; a single file is accepted whatever lies beside it.
        used: what is read.

    Raises:
        CheckpointError: there are some.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path in used or not path.is_file():
            continue
        if path.name == ADAPTER_CONFIG_FILE or _holds_corrections(path):
            raise CheckpointError(
                f"{path}: LoRA corrections beside weights, under a name by which they are not applied; to apply them "
                f"rename the file to {ADAPTER_FILES[2]} (of PEFT: {ADAPTER_FILES[0]} with {ADAPTER_CONFIG_FILE}), else "
                "move it out of the folder"
            )


def _holds_corrections(path: Path) -> bool:
    if path.suffix != SUFFIX:
        return "lora" in path.name.lower() and path.suffix in (".bin", ".pt", ".pth", ".ckpt")
    try:
        with safe_open(path, framework="pt") as content:
            names = list(content.keys())
    except (SafetensorError, OSError):
        return False
    return bool(names) and all(is_correction(name) or name.endswith("alpha") for name in names)


def digest_weights(path: Path) -> str:
    """SHA-256 of a weight file, or over those of all files of a form that has several.

    Raises like :func:`locate`.
    """
    files = list_files(path)
    if len(files) == 1:
        return sha256_of_file(files[0])
    digests = [f"{file.name} {sha256_of_file(file)}" for file in files]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder under a temporary name that takes the place of another if the block succeeds."""
    temporary = target.with_name(f".{target.name}.tmp")
    replaced = target.with_name(f".{target.name}.removed.tmp")
    for rest in (temporary, replaced):
        shutil.rmtree(rest, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        if target.exists():  # it goes whole, so that nobody reads what is left of it
            target.rename(replaced)
        temporary.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_adapter(source: Path) -> Path:
    """The folder of the corrections that weights contain.

    Args:
        source: ``iter_*_model.pt`` of a run, its folder ``checkpoints``, a published model, or the adapter itself.

    Raises:
        CheckpointError: no weights, or weights without an adapter.
    """
    if has_adapter(source):
        return source
    file = locate(source)
    match = TRAINER_FILE.match(file.name)
    beside = ADAPTER_FOLDER if match is None else adapter_name(int(match[1]), match[2] or "ema")
    if not has_adapter(file.parent / beside):
        raise CheckpointError(
            f"{source}: {file.name} has no adapter ({file.parent / beside} is not there); a training with lora.rank "
            "writes one for each of its checkpoints, and publish takes it over with outputs.adapter: true"
        )
    return file.parent / beside
