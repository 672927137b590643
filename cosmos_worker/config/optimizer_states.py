"""Which moments of the optimizer can have 8 bits: by their shape, however weights are spread. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

BLOCK_SIZE = 256
"""Neighbouring values of a row that share one scale."""
MIN_VALUES = 4096
"""Smaller tensors keep float32: they save nothing."""
SCALE_BYTES = 4


def has_8bit_states(shape: Sequence[int]) -> bool:
    """Whether the moments of a parameter can be quantised: a matrix whose rows are whole blocks.

    Processes share a matrix by rows, so no block is cut.
    """
    return len(shape) > 1 and shape[-1] % BLOCK_SIZE == 0 and prod(shape) >= MIN_VALUES


def moment_bytes(num_quantised: int, num_others: int) -> int:
    """Both moments of parameters whose moments are quantised, and of the others."""
    scales = num_quantised // BLOCK_SIZE * SCALE_BYTES
    return 2 * (num_quantised + scales + num_others * 4)
