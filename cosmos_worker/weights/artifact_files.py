"""Choose the files of an artifact in a folder or repository: one form of its weights, and the files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosmos_worker.config.source import Artifact
from cosmos_worker.errors import DataError
from cosmos_worker.storage.file_kinds import (
    SAFETENSORS,
    TORCH_ZIP,
    recognise_file,
    refuse_pointers,
    refuse_pointers_in,
)
from cosmos_worker.storage.files import folder_content
from cosmos_worker.storage.volumes import (
    DECODER_FILE,
    ENCODER_FILE,
    FACE_FILE,
    FILTER_FILE,
    MEAN_STD_FILE,
    MODEL_FILE,
    WHITELIST,
    WORD_LISTS,
)
from cosmos_worker.storage.web_page import refuse_page
from cosmos_worker.weights.forms import (
    ACCEPTED,
    CONFIG_FILE,
    SUFFIX,
    choose_weights,
    files_beside,
    list_names,
    names_below,
    others_in,
    shards_of,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
"""A text encoder needs one of these."""
TEXT_EXTRA_FILES = ("special_tokens_map.json", "added_tokens.json")
CHAT_TOKENIZER_FILES = (*TOKENIZER_FILES, "tokenizer.model", "tekken.json")
"""A chat model needs one of these."""
CHAT_EXTRA_FILES = (
    "special_tokens_map.json", "added_tokens.json", "generation_config.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
PICTURE_FILES = ("preprocessor_config.json", "processor_config.json")
"""A model that sees pictures needs one of these."""
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights of a model for transformers, best first; an index comes with the files that it names."""
GUARDRAILS = {
    "guardrails": (FILTER_FILE,),
    "guardrails_with_face_blur": (FILTER_FILE, FACE_FILE),
}
"""Networks of guardrails, by kind."""


@dataclass(frozen=True)
class Choice:
    """The files that an artifact takes of a folder or repository."""

    names: list[str]
    """Files to take."""
    missing: list[str]
    """Needed files that are not there, in words."""


def choose_files(kind: str, names: Sequence[str]) -> Choice:
    """Pick the files of an artifact among all names of a folder or repository.

    Args:
        kind: of `ArtifactKind`.
        names: relative paths; in sub-folders only those of a model's transformer/ and of guardrails are taken.

    Returns:
        The files to take, and what is missing. Shards of a model are named by its index, see :func:`with_shards`.

    Raises:
        CheckpointError: several weight files of a model, of which none is the best.
    """
    there = set(names)
    if kind == "model":
        return _choose_model(names)
    if kind == "tokenizer":
        return _required((ENCODER_FILE, DECODER_FILE, MEAN_STD_FILE), (CONFIG_FILE,), there)
    if kind in GUARDRAILS:
        return _guardrails(there, GUARDRAILS[kind])
    if kind == "text_encoder":
        return _transformers(there, TEXT_EXTRA_FILES, TOKENIZER_FILES)
    if kind == "text_classifier":
        return _transformers(there, CHAT_EXTRA_FILES, CHAT_TOKENIZER_FILES)
    if kind == "image_encoder":
        return _transformers(there, (), PICTURE_FILES)
    return _transformers(there, CHAT_EXTRA_FILES, CHAT_TOKENIZER_FILES, PICTURE_FILES)


def names_in(kind: str, folder: Path) -> list[str]:
    """Names of a folder's files that `choose_files` may be asked about; guardrails have some further down."""
    if kind not in GUARDRAILS:
        return list_names(folder)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _choose_model(names: Sequence[str]) -> Choice:
    """The best form of a model that is there."""
    weights = choose_weights(names, "the source")
    if weights is None:
        return Choice([], [f"weights ({ACCEPTED})"])
    beside, missing = files_beside(weights, names)
    return Choice([weights, *beside], missing)


def with_shards(choice: Choice, folder: Path) -> Choice:
    """The choice with the shards that a model's index in the folder names."""
    names = list(choice.names)
    for name in choice.names:
        parent = PurePosixPath(name).parent
        names += [str(parent / shard) for shard in shards_of(folder / name)]
    return Choice(names, [*choice.missing, *(n for n in names if not (folder / n).is_file())])


def _guardrails(there: set[str], networks: Sequence[str]) -> Choice:
    """Word lists and networks; files that begin with a dot are no lists."""
    choice = _required(networks, (), there)
    for folder in WORD_LISTS:
        lists = [name for name in sorted(there) if _is_list(name, folder)]
        choice.names.extend(lists)
        if not lists and folder != WHITELIST:
            choice.missing.append(f"a list of words in {folder}/")
    return choice


def _is_list(name: str, folder: str) -> bool:
    parent, _, file = name.rpartition("/")
    return parent == folder and not file.startswith(".")


def _transformers(there: set[str], extra: Sequence[str], *one_of_each: Sequence[str]) -> Choice:
    """A model for transformers: its configuration, weights in one form, and one of each group of files."""
    choice = _required((CONFIG_FILE,), [name for group in one_of_each for name in group], there)
    choice.names.extend(name for name in extra if name in there)
    choice.missing.extend(
        f"one of {', '.join(group)}" for group in one_of_each if not there.intersection(group)
    )
    weights = next((name for name in WEIGHT_FILES if name in there), None)
    if weights is None:
        choice.missing.append("model.safetensors or pytorch_model.bin, whole or in pieces")
    else:
        choice.names.append(weights)
        if weights.endswith(".index.json"):
            stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
            choice.names.extend(sorted(n for n in there if _is_piece(n, stem, suffix)))
    return choice


def _required(required: Sequence[str], optional: Sequence[str], there: set[str]) -> Choice:
    names = [name for name in (*required, *optional) if name in there]
    return Choice(names, [name for name in required if name not in there])


def _is_piece(name: str, stem: str, suffix: str) -> bool:
    return name.startswith(f"{stem}-") and name.endswith(f".{suffix}") and "/" not in name


# --- files of an artifact in a folder ------------------------------------------------------------


def _refuse_stand_in(path: Path) -> None:
    """Refuse a file that only stands for the wanted one.

    Raises:
        CheckpointError: a Git LFS pointer.
        DataError: a web page.
    """
    refuse_pointers([path])
    refuse_page(path, str(path), path.name)


def weights_of_file(artifact: Artifact, path: Path, where: str) -> dict[str, Path]:
    """A single file of weights under the name that models have: by its content, or by its own name if that is damaged.

    Raises:
        DataError: a file of another kind, which is named.
    """
    _refuse_stand_in(path)
    kind = recognise_file(path)
    if kind in (TORCH_ZIP, SAFETENSORS):
        return {MODEL_FILE if kind == TORCH_ZIP else Path(MODEL_FILE).stem + SUFFIX: path}
    if path.suffix in (".pt", SUFFIX):
        return {Path(MODEL_FILE).stem + path.suffix: path}
    raise DataError(
        f"{artifact.name}: {where} is {kind or 'no weight file that is known'}; "
        "give a file of torch.save or safetensors, or the folder of several"
    )


def files_of_path(artifact: Artifact, path: Path) -> dict[str, Path]:
    """The artifact's files at a path: those of a folder, or a model's single file. Raises like :func:`files_in`."""
    if artifact.kind == "model" and path.is_file():
        return weights_of_file(artifact, path, f"source path {artifact.source.path} ({path})")
    if not path.is_dir():
        hint = f" or a .pt or {SUFFIX} file" if artifact.kind == "model" else ""
        raise DataError(
            f"{artifact.name}: source path {artifact.source.path} ({path}) is no folder{hint}; "
            "correct the path or mount its volume"
        )
    return files_in(artifact, path)


def files_in(artifact: Artifact, folder: Path) -> dict[str, Path]:
    """The artifact's files in a folder.

    Raises:
        DataError: with all that is missing and what is there.
    """
    choice = choose_files(artifact.kind, names_in(artifact.kind, folder))
    if artifact.kind == "model":
        choice = with_shards(choice, folder)
        missing = choice.missing
    else:
        missing = [*choice.missing, *_missing_pieces(folder, choice.names)]
    if missing:
        refuse_pointers_in(folder)
        names = names_below(folder) if artifact.kind == "model" else []
        raise lacking_files(artifact, str(folder), missing, names, folder_content(folder))
    for name in choice.names:
        _refuse_stand_in(folder / name)
    return {name: folder / name for name in choice.names}


def lacking_files(
    artifact: Artifact, where: str, missing: Sequence[str], names: Sequence[str], content: str
) -> DataError:
    """The error for a source without needed files.

    Args:
        artifact: that is fetched.
        where: address of the source.
        missing: needed files, in words.
        names: of all files, also those further down.
        content: what the source holds, in words.
    """
    return DataError(
        f"{artifact.name}: {where} lacks {', '.join(missing)} for a {artifact.kind}; it holds {content}"
        f"{others_in(names) if artifact.kind == 'model' else ''}; add the files or correct the source"
    )


def _missing_pieces(folder: Path, names: Sequence[str]) -> list[str]:
    """Weight files that an index names and the folder lacks."""
    missing: set[str] = set()
    for name in names:
        if name.endswith(".index.json"):
            try:
                pieces = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"]
                missing.update(piece for piece in pieces.values() if piece not in names)
            except (ValueError, KeyError, AttributeError) as error:
                raise DataError(
                    f"{folder / name}: no index of weight files ({error!r}); fetch the file again"
                ) from None
    return sorted(missing)


def root_of_archive(artifact: Artifact, folder: Path) -> Path:
    """The folder of an archive that has the artifact's files: its root, or the only one below it that fits."""
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    fitting = [
        path
        for path in folders
        if not choose_files(artifact.kind, names_in(artifact.kind, path)).missing
    ]
    if artifact.kind == "model":  # transformer/ is also one by itself
        fitting = [path for path in fitting if path.parent not in fitting]
    if len(fitting) > 1 and fitting[0] != folder:
        found = ", ".join(str(path.relative_to(folder)) for path in fitting[:5])
        raise DataError(
            f"{artifact.name}: {len(fitting)} folders of the archive hold a {artifact.kind} ({found}); pack one"
        )
    return fitting[0] if fitting else folder
