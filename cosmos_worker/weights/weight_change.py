"""Relative change of the weights by a training: the norm of the change divided by that of the base.

It is measured on the weights as the training has them, before they are rounded for an export. A training that changed
nothing, such as one with a learning rate of zero, is noticed by it alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.storage.volumes import (
    CHANGES_FILE,
    write_json,
)

Change = dict[str, float]
"""Relative change by kind of layer; ``network`` is that of all of them but the uncertainty head."""
NETWORK = "network"
KINDS = (
    ("adaln", re.compile(r"^net\.blocks\..*\.adaLN_modulation\.")),
    ("self-attention", re.compile(r"^net\.blocks\.block\d+\.blocks\.0\.")),
    ("cross-attention", re.compile(r"^net\.blocks\.block\d+\.blocks\.1\.")),
    ("mlp", re.compile(r"^net\.blocks\.block\d+\.blocks\.2\.")),
    ("final layer", re.compile(r"^net\.final_layer\.")),
    ("embedders", re.compile(r"^net\.")),
    ("uncertainty head", re.compile(r"^logvar\.")),
)
"""Kinds of layers, by the first pattern that fits a name."""
HEAD = "uncertainty head"
NOTHING_TRAINED = (
    "step %d: the network equals the one that the training began with: nothing was trained; look at "
    "optimizer.learning_rate, its warm-up, and the logged grad_norm"
)
"""Warning for a training that :func:`is_unchanged`; takes the step."""
COUNTER = "net.pos_embedder.seq"
PIECE = 1 << 19
"""Values at a time; float32 sums of so many are exact enough."""


def measure_change(
    new: Mapping[str, Tensor], base: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]
) -> Change:
    """The relative change of each kind of layer, tensor by tensor.

    Args:
        new: weights under our names.
        base: those that the training began with; what it lacks was drawn and does not count.
        dtypes: the type that the training has a weight in, if that is not float32: then the base is rounded alike.
    """
    changes = measure_changes({"": new}, base, dtypes)
    assert changes is not None  # nothing stops it
    return changes[""]


def measure_changes(
    averages: Mapping[str, Mapping[str, Tensor]],
    base: Mapping[str, Tensor],
    dtypes: Mapping[str, torch.dtype],
    frozen: Collection[str] = (),
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Change] | None:
    """The relative changes of several weights, such as reg and ema, with each tensor of the base read once.

    Args:
        averages: weights under our names, by what they are; all have the same names.
        base: those that the training began with; what it lacks was drawn and does not count.
        dtypes: the type that the training has a weight in, see :func:`measure_change`.
        frozen: names of weights that are those of the base, which is not read for them.
        is_stopping: asked before each tensor; None is returned once it says so.
    """
    moved: dict[str, dict[str, float]] = {weights: {} for weights in averages}
    whole: dict[str, float] = {}
    for name, value in next(iter(averages.values())).items():
        if is_stopping():
            return None
        kind = next((kind for kind, pattern in KINDS if pattern.match(name)), None)
        if kind is None or name == COUNTER or name not in base:
            continue
        if name in frozen:
            differences, size = [0.0] * len(averages), _square(value)
        else:
            values = [state[name] for state in averages.values()]
            differences, size = _squares(values, base[name], dtypes.get(name, torch.float32))
        whole[kind] = whole.get(kind, 0.0) + size
        for sums, difference in zip(moved.values(), differences, strict=True):
            sums[kind] = sums.get(kind, 0.0) + difference
    return {weights: _relative(sums, whole) for weights, sums in moved.items()}


def _relative(moved: Mapping[str, float], whole: Mapping[str, float]) -> Change:
    kinds = [kind for kind, _ in KINDS if kind in moved]
    change = {kind: _ratio(moved[kind], whole[kind]) for kind in kinds}
    network = [kind for kind in kinds if kind != HEAD]
    total = _ratio(sum(moved[k] for k in network), sum(whole[k] for k in network))
    return {NETWORK: total, **change}


def _square(value: Tensor) -> float:
    pieces = (piece.float() for piece in value.detach().reshape(-1).split(PIECE))
    return sum(float(torch.dot(piece, piece)) for piece in pieces)


def _squares(new: Sequence[Tensor], base: Tensor, dtype: torch.dtype) -> tuple[list[float], float]:
    """Squared norms of differences and of the base, piece by piece, which stay in the processor's cache."""
    differences, size = [0.0] * len(new), 0.0
    pieces = [value.detach().reshape(-1).split(PIECE) for value in new]
    for before, *after in zip(base.reshape(-1).split(PIECE), *pieces, strict=True):
        rounded = before.to(dtype).float()
        size += float(torch.dot(rounded, rounded))
        for number, piece in enumerate(after):
            moved = piece.float() - rounded
            differences[number] += float(torch.dot(moved, moved))
    return differences, size


def _ratio(moved: float, whole: float) -> float:
    if moved == 0:
        return 0.0
    return float(f"{math.sqrt(moved / whole):.5g}") if whole else 1.0


def read_changes(run: Path) -> dict[int, dict[str, Change]]:
    """The change of each exported step's regular (``reg``) and averaged (``ema``) weights; empty if none was taken."""
    try:
        document = json.loads((run / CHANGES_FILE).read_text(encoding="utf-8"))
        return {
            int(step): {
                str(weights): {str(kind): float(value) for kind, value in change.items()}
                for weights, change in changes.items()
            }
            for step, changes in document.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def read_change(run: Path, step: int) -> dict[str, Change]:
    """The change of a step's weights; empty if none was taken."""
    return read_changes(run).get(step, {})


def write_change(run: Path, step: int, changes: Mapping[str, Change]) -> None:
    """Add the change of a step's weights to those of the run.

    Raises:
        OSError: a failed write.
    """
    write_json(run / CHANGES_FILE, {**read_changes(run), step: changes})


def is_unchanged(changes: Mapping[str, Change]) -> bool:
    """True if a training has left its network as it was; an average of equal weights may differ by rounding."""
    taken = changes.get("reg") or changes.get("ema")
    return taken is not None and taken.get(NETWORK) == 0


def describe_change(change: Change) -> str:
    """One line, such as ``network 1.2e-03, mlp 1.5e-03``."""
    return ", ".join(f"{kind} {value:.2e}" for kind, value in change.items())
