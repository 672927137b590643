"""Whether all weight files of a folder of transformers are there and whole. Reads their headers, no weight."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cosmos_worker.errors import CheckpointError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Each in one file, or in parts with a list of them beside; in the order in which transformers prefers them."""
LIST_SUFFIX = ".index.json"

Parts = Mapping[str, Collection[str]]
"""Weight file by name → weights that the list says it has; nothing without a list."""


def check_weight_files(folder: Path, what: str) -> None:
    """Look for every file that the weights are in; a damaged ``.bin`` shows only when it is loaded.

    Args:
        folder: folder of a whole model.
        what: its role, for messages.

    Raises:
        CheckpointError: no weights, a part that is absent or empty, or a safetensors file that is cut off or lacks a
            weight of the list.
    """
    parts = _find_parts(folder, what)
    gone = sorted(name for name in parts if not (folder / name).is_file())
    if gone:
        raise CheckpointError(
            f"{folder}: {len(gone)} of {len(parts)} weight files of the {what} absent, first {gone[0]}; fetch it again"
        )
    for name, weights in parts.items():
        _check_part(folder / name, weights, what)


def _find_parts(folder: Path, what: str) -> Parts:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return {name: ()}
        index = folder / f"{name}{LIST_SUFFIX}"
        if index.is_file():
            return _read_list(index, what)
    raise CheckpointError(
        f"{folder}: no weights of the {what} ({' or '.join(WEIGHT_FILES)}, or a list of their parts); fetch it again"
    )


def _read_list(index: Path, what: str) -> Parts:
    parts: dict[str, set[str]] = {}
    try:
        for weight, name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            parts.setdefault(name, set()).add(weight)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: no list of weight files ({error!r}); fetch the {what} again"
        ) from None
    return parts


def _check_part(path: Path, weights: Collection[str], what: str) -> None:
    try:
        found = _names_in(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); fetch the {what} again"
        ) from None
    if found is None:
        return
    absent = sorted(set(weights) - found)
    if absent:
        raise CheckpointError(
            f"{path}: lacks {len(absent)} weights that the list of the {what} says are in it, first {absent[0]}; "
            "fetch it again"
        )


def _names_in(path: Path) -> set[str] | None:
    """Weights of a safetensors file, whose header must cover it whole; None for a ``.bin`` that can be opened."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as content:
            return set(content.keys())
    with path.open("rb") as stream:
        if not stream.read(1):
            raise OSError("empty")
    return None
