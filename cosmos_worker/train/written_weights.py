"""Whole weights for exports, read tensor by tensor from the shards of a checkpoint that all processes have written.

Nothing is gathered while the training waits, and no process holds more than the file that it exports: the main process
reads, in a thread beside the training, what lies on the volume anyway.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.train.checkpoint import VISIBLE_S
from cosmos_worker.weights.dcp import METADATA_FILE, DcpTensors
from cosmos_worker.weights.tensors import Overlaid, Renamed

MODEL, AVERAGE = "model.", "ema."
"""Beginnings of the names that weights and averages have in the shards."""
RETRY_S = 1.0


def read_weights(
    shards: Path, names: Sequence[str], frozen: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """The weights of a checkpoint and their average, each tensor read when it is asked for.

    Args:
        shards: folder that all processes have written their parts into.
        names: of all weights, in the order of the network.
        frozen: the weights that checkpoints do not contain.

    Returns:
        Weights by name; and averages where there are some, of the others the weights, or None without an average.

    Raises:
        RetryableError: a file that is not there after VISIBLE_S, damaged, or lacks a weight.
    """
    stored = _open(shards)
    model, average = (
        Renamed(stored, {n.removeprefix(part): n for n in stored if n.startswith(part)})
        for part in (MODEL, AVERAGE)
    )
    lacking = [name for name in names if name not in model and name not in frozen]
    if lacking:
        raise RetryableError(
            f"{shards}: has not the weight {lacking[0]} ({len(lacking)} in all); start again, and if it comes again, "
            "tell the developers"
        )
    regular = Overlaid(names, (model, frozen))
    return regular, Overlaid(names, (average, regular)) if average else None


def _open(shards: Path) -> DcpTensors:
    """The tensors in the shards, once this node sees all files: those of other nodes may show up later."""
    end = time.monotonic() + VISIBLE_S
    while True:
        try:
            return DcpTensors(shards / METADATA_FILE, is_own_state=True)
        except CheckpointError as error:
            if time.monotonic() > end:
                raise RetryableError(
                    f"{shards}: written, but cannot be read for the export: {error}"
                ) from None
        time.sleep(RETRY_S)
