"""Which files of a folder or repository an artifact takes: one form of the weights, and what belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosmos_worker.data.weight_forms import (
    ACCEPTED,
    CONFIG_FILE,
    choose_weights,
    companions,
    shards_of,
)
from cosmos_worker.layout import DECODER_FILE, ENCODER_FILE, MEAN_STD_FILE

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
"""A text encoder needs one of these."""
TEXT_EXTRA_FILES = ("special_tokens_map.json", "added_tokens.json")
TEXT_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""A text encoder's weights, best first; an index comes with the files that it names."""


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
        kind: model, tokenizer or text_encoder.
        names: relative paths; of files in sub-folders only those of a model's transformer/ are taken.

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
    choice = _required((CONFIG_FILE,), (*TOKENIZER_FILES, *TEXT_EXTRA_FILES), there)
    if not there.intersection(TOKENIZER_FILES):
        choice.missing.append(f"one of {', '.join(TOKENIZER_FILES)}")
    weights = next((name for name in TEXT_WEIGHT_FILES if name in there), None)
    if weights is None:
        choice.missing.append("model.safetensors or pytorch_model.bin, whole or in pieces")
    else:
        choice.names.append(weights)
        if weights.endswith(".index.json"):
            stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
            choice.names.extend(sorted(n for n in there if _is_piece(n, stem, suffix)))
    return choice


def _choose_model(names: Sequence[str]) -> Choice:
    """One form of a model, whichever is the best that is there."""
    weights = choose_weights(names, "the source")
    if weights is None:
        return Choice([], [f"weights ({ACCEPTED})"])
    beside, missing = companions(weights, names)
    return Choice([weights, *beside], missing)


def with_shards(choice: Choice, folder: Path) -> Choice:
    """The choice with the shards that a model's index in the folder names."""
    names = list(choice.names)
    for name in choice.names:
        parent = PurePosixPath(name).parent
        names += [str(parent / shard) for shard in shards_of(folder / name)]
    return Choice(names, [*choice.missing, *(n for n in names if not (folder / n).is_file())])


def _required(required: Sequence[str], optional: Sequence[str], there: set[str]) -> Choice:
    names = [name for name in (*required, *optional) if name in there]
    return Choice(names, [name for name in required if name not in there])


def _is_piece(name: str, stem: str, suffix: str) -> bool:
    return name.startswith(f"{stem}-") and name.endswith(f".{suffix}") and "/" not in name
