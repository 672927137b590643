"""Which files of a folder or repository an artifact takes: one form of the weights, and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosmos_worker.storage.volumes import (
    DECODER_FILE,
    ENCODER_FILE,
    FACE_FILE,
    FILTER_FILE,
    MEAN_STD_FILE,
    WHITELIST,
    WORD_LISTS,
)
from cosmos_worker.weights.forms import (
    ACCEPTED,
    CONFIG_FILE,
    choose_weights,
    files_beside,
    list_names,
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
    """Which files of a folder or repository an artifact takes."""

    names: list[str]
    """Files to take."""
    missing: list[str]
    """What is needed and not there."""


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
    """One form of a model, whichever is the best that is there."""
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
