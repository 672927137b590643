"""Memory of a node beside its GPUs: while weights are read, and while a checkpoint is written. No torch."""

from __future__ import annotations

from math import ceil

from cosmos_worker.memory.plan import (
    BFLOAT_BYTES,
    FLOAT_BYTES,
    Setup,
    net_size,
    saved_bytes,
)


def loading_bytes(setup: Setup) -> int:
    """Pages of the weight file, bfloat16, which all processes share and the system can take back.

    A GPU then holds its share of the weights and nothing more: they are copied one tensor at a time.
    """
    return net_size(setup.experiment.net).parameters * BFLOAT_BYTES


def saving_bytes(setup: Setup) -> int:
    """Copies on the node of the main process from the beginning of a save until it is written.

    Every process copies what it writes, and together they write everything once, sharded or not. The main process also
    has the whole weights in float32, those of the average beside them, and once more the file that it writes.
    """
    ema = setup.experiment.ema.enabled
    share = ceil(saved_bytes(setup.experiment) / setup.num_gpus)
    whole = net_size(setup.experiment.net).parameters * FLOAT_BYTES
    file = whole if ema else whole // FLOAT_BYTES * BFLOAT_BYTES
    return min(setup.num_gpus, setup.gpus_per_node) * share + whole * (2 if ema else 1) + file
