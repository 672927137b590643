"""Which files of a folder or repository are a network's weights. Knows names only, and reads no tensor.

Forms, best first: NVIDIA's ``model.pt``; ``transformer/`` of diffusers, or what is in it; safetensors in one file or
shards with an index; a folder of torch.distributed.checkpoint; what a trainer saves, ``iter_*_{ema,reg}_model.pt``.
Where a folder holds several forms, the best one is taken and the others are not looked at.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import (
    describe_pointer,
    is_pointer,
)
from cosmos_worker.storage.volumes import MODEL_FILE
from cosmos_worker.weights.dcp import (
    METADATA_FILE,
    NESTED_FOLDER,
    is_dcp,
    list_dcp_files,
)

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
TRANSFORMER_FOLDER = "transformer"
"""Where diffusers keeps the network of a pipeline."""
CONFIG_FILE = "config.json"
LOGVAR_FILE = f"logvar{SUFFIX}"
"""Lies beside ``transformer/``, which has no place for the uncertainty head."""
ADAPTER_FILE = f"adapter_model{SUFFIX}"
"""PEFT's name for LoRA corrections alone; in a folder of weights they correct these."""
PEFT_FILES = (ADAPTER_FILE, "adapter_model.bin")
"""What PEFT has written or writes, in the order in which it looks for them."""
ADAPTER_FILES = (*PEFT_FILES, f"pytorch_lora_weights{SUFFIX}", "pytorch_lora_weights.bin")
"""Names of LoRA corrections alone, of PEFT and of diffusers."""
ADAPTER_CONFIG_FILE = "adapter_config.json"
TRAINER_FILE = re.compile(r"^iter_(\d+)_(?:(ema|reg)_)?model\.pt$")
KINDS = ("ema", None, "reg")
"""What the trainer saves of a step, best first; None is the ``{model, ema}`` of its LoRA runs."""
ACCEPTED = (
    f"{MODEL_FILE}, {TRANSFORMER_FOLDER}/*{SUFFIX} with {TRANSFORMER_FOLDER}/{CONFIG_FILE}, *{SUFFIX} (several with "
    f"*{INDEX_SUFFIX}), {METADATA_FILE} with *.distcp, or iter_*_{{ema,reg}}_model.pt"
)
"""For messages."""
SHOWN_NAMES = 8
LOOK_BELOW, MAX_LOOKED_AT = 3, 200
"""How many levels of folders are looked through for a message, and how many of one level."""
NESTED_METADATA = f"{NESTED_FOLDER}/{METADATA_FILE}"
JOIN = (
    "python -c \"import glob, torch; s = {}; [s.update(torch.load(f, map_location='cpu', weights_only=True)) "
    "for f in glob.glob('*-of-*')]; torch.save(s, 'model.pt')\""
)
OTHERS = (
    (r"\.gguf", "is a file of llama.cpp with quantised weights: give those that it was made of"),
    (r"\.onnx", "is an ONNX graph: give the weights that it was made of"),
    (r"\.(?:msgpack|h5)", "is of Flax or TensorFlow: give the weights for PyTorch"),
    (
        r"_(?:model|optim)_states\.pt",
        "is one process's part of a training with DeepSpeed; join them in the folder above by DeepSpeed's own script, "
        "'python zero_to_fp32.py . FOLDER --safe_serialization', and give that FOLDER",
    ),
    (
        r"\.distcp",
        f"is of torch.distributed.checkpoint, whose {METADATA_FILE} is not there: copy this hidden file too",
    ),
    (
        r"-of-\d+\.(?:bin|pt|pth)",
        f"is one of several files of torch.save; join them in that folder, in memory: {JOIN}",
    ),
    (
        r"\.(?:bin|ckpt|pth|pt)",
        f"may hold weights, as a file of torch.save: name that file itself, or call it {MODEL_FILE}",
    ),
)
"""Ends of names of what is no form of weights here → what it is and what to do."""


def list_names(folder: Path) -> list[str]:
    """Names that :func:`choose_weights` may be asked about: the folder's own files, and those of ``transformer/``.

    Of ``model/`` these are its files if it is one of torch.distributed.checkpoint.
    """
    nested = [folder / TRANSFORMER_FOLDER, (folder / NESTED_METADATA).parent]
    folders = [folder, *(one for one in nested[:1] if one.is_dir())]
    folders += [one for one in nested[1:] if (one / METADATA_FILE).is_file()]
    return [
        path.relative_to(folder).as_posix()
        for parent in folders
        for path in sorted(parent.iterdir())
        if path.is_file()
    ]


def choose_weights(names: Iterable[str], where: str) -> str | None:
    """The weight file to load, or the index of its shards; None if there is none.

    Args:
        names: relative paths of all files; only the first level and ``transformer/`` count.
        where: folder or repository, for messages.

    Raises:
        CheckpointError: several files of the best form.
    """
    there = [PurePosixPath(name) for name in names]
    if PurePosixPath(MODEL_FILE) in there:
        return MODEL_FILE
    for parent in (PurePosixPath(TRANSFORMER_FOLDER), PurePosixPath()):
        for suffix in (INDEX_SUFFIX, SUFFIX):
            found = [
                str(name)
                for name in there
                if name.parent == parent
                and name.name.endswith(suffix)
                and name.name not in (LOGVAR_FILE, *ADAPTER_FILES)
            ]
            if len(found) > 1:
                shown = ", ".join(sorted(found)[:SHOWN_NAMES])
                raise CheckpointError(
                    f"{where}: holds {len(found)} weight files and no index ({shown}); name the one to load"
                    if suffix == SUFFIX
                    else f"{where}: holds {len(found)} indexes of shards ({shown}); name the one to load"
                )
            if found:
                return found[0]
    for metadata in (METADATA_FILE, NESTED_METADATA):
        if PurePosixPath(metadata) in there:
            return metadata
    return _latest_of_trainer([str(name) for name in there if name.parent == PurePosixPath()])


def _latest_of_trainer(names: Sequence[str]) -> str | None:
    """The averaged weights of the last step, else the regular ones; as publish takes them from a run of ours."""
    matches = [match for name in names if (match := TRAINER_FILE.match(name))]
    if not matches:
        return None
    return max(matches, key=lambda match: (int(match[1]), -KINDS.index(match[2])))[0]


def companions(weights: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files that belong to the weights, without the shards of an index.

    Returns:
        Those that are there, and those that are needed and are not.
    """
    there = set(names)
    parent = PurePosixPath(weights).parent
    config = str(parent / CONFIG_FILE)
    needed = [config] if parent.name == TRANSFORMER_FOLDER else []
    wanted = [config, *([LOGVAR_FILE] if parent.name == TRANSFORMER_FOLDER else [])]
    adapter = find_adapter_name(there)
    if adapter is not None:
        wanted.append(adapter)
    if adapter in PEFT_FILES:
        needed.append(ADAPTER_CONFIG_FILE)
        wanted.append(ADAPTER_CONFIG_FILE)
    return [name for name in wanted if name in there], [
        name for name in needed if name not in there
    ]


def other_corrections(names: Iterable[str]) -> list[str]:
    """Files beside weights that are LoRA corrections by their names, under names by which nothing applies them."""
    return sorted(
        name
        for name in names
        if "lora" in name.lower()
        and "/" not in name
        and name not in ADAPTER_FILES
        and name.endswith((SUFFIX, ".bin", ".pt", ".pth", ".ckpt"))
    )


def find_adapter_name(names: Collection[str]) -> str | None:
    """The file with the LoRA corrections of a folder's weights; None if there is none.

    Args:
        names: of the folder's own files.

    Raises:
        CheckpointError: PEFT's and diffusers' corrections at once.
    """
    found = [name for name in ADAPTER_FILES if name in names]
    if {name in PEFT_FILES for name in found} == {True, False}:
        raise CheckpointError(
            f"two LoRA adapters beside each other ({', '.join(found)}); keep the one that is meant"
        )
    return found[0] if found else None


def read_index(path: Path) -> dict[str, str]:
    """Tensor → file name, of an index of shards.

    Raises:
        CheckpointError: not such an index, or a shard in another folder.
    """
    if is_pointer(path):
        raise CheckpointError(describe_pointer(path))
    try:
        index: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        strangers = [file for file in index.values() if PurePosixPath(file).name != file]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not an index of shards ({type(error).__name__}: {error}); fetch the model again"
        ) from None
    if strangers:
        raise CheckpointError(
            f"{path}: names {strangers[0]!r}; shards lie beside their index: fetch the model again"
        )
    return index


def shards_of(path: Path) -> list[str]:
    """Names of the shards of an index, or of the files of torch.distributed.checkpoint; empty for any other file.

    Raises:
        CheckpointError: not an index of shards.
    """
    if is_dcp(path):
        return list_dcp_files(path)
    return sorted(set(read_index(path).values())) if path.name.endswith(INDEX_SUFFIX) else []


def names_below(folder: Path) -> list[str]:
    """Relative names of files in a folder and in those below it, as far as messages look; hidden folders are left."""
    names: list[str] = []
    level = [folder]
    for _ in range(LOOK_BELOW + 1):
        paths = [path for parent in level for path in _list_folder(parent)[:MAX_LOOKED_AT]]
        names += [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
        level = [
            path
            for path in paths
            if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
        ][:MAX_LOOKED_AT]
    return names


def _list_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # not to be read
        return []


def folders_with_weights(names: Iterable[str]) -> list[str]:
    """Folders below the one that names are relative to which hold weights of a known form, such as a checkpoint's."""
    files: dict[str, list[str]] = defaultdict(list)
    for name in names:
        files[str(PurePosixPath(name).parent)].append(PurePosixPath(name).name)
    inner = (TRANSFORMER_FOLDER, NESTED_FOLDER)
    folders = {str(PurePosixPath(one).parent) for one in files if PurePosixPath(one).name in inner}
    found = [
        folder
        for folder in sorted((folders | set(files)) - {"."})
        if _has_weights([
            *files.get(folder, ()),
            *(f"{one}/{name}" for one in inner for name in files.get(f"{folder}/{one}", ())),
        ])
    ]  # fmt: skip
    return [one for one in found if str(PurePosixPath(one).parent) not in found]


def _has_weights(names: Sequence[str]) -> bool:
    try:
        return choose_weights(names, "a folder") is not None
    except CheckpointError:  # several
        return True


def others_in(names: Iterable[str]) -> str:
    """What a folder without weights of a known form holds instead, as the end of a message; may be empty.

    Args:
        names: relative, with those in folders below.
    """
    there = sorted(names)
    if below := folders_with_weights(there):
        shown = ", ".join(below[:SHOWN_NAMES])
        dcp = {str(PurePosixPath(name).parent) for name in there if is_dcp(PurePosixPath(name))}
        is_plain = dcp.isdisjoint({*below, *(f"{one}/{NESTED_FOLDER}" for one in below)})
        return f"; {'weights' if is_plain else 'torch.distributed.checkpoint'} in {shown}: give that folder itself"
    for end, what in OTHERS:
        found = next((name for name in there if re.search(f"{end}$", name)), None)
        if found is not None:
            return f"; {found} {what}"
    return ""
