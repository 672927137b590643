"""Weight files written by torch.save: flat, with Transformer Engine's extra states, or wrapped as LoRA runs do."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.saved_tensors import read_saved

WRAPPER = {"model", "ema", "trained_data_record"}
"""Entries of a wrapped file; the last counts samples and is not looked at."""
EXTRA_STATE_SUFFIX = "_extra_state"
"""Entries of Transformer Engine, which hold scales of FP8 and are of no use to another network."""


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a file, memory-mapped, under the names in it, without extra states.

    Raises:
        CheckpointError: truncated or unsafe file, or something else than tensors by name.
    """
    # The reference's trainer saves extra states as BytesIO. It holds bytes, which are never unpickled.
    with torch.serialization.safe_globals([io.BytesIO]):
        state = _unwrapped(read_saved(path, "fetch or publish it again", mmap=True))
    if isinstance(state, dict):
        state = {k: v for k, v in state.items() if not str(k).endswith(EXTRA_STATE_SUFFIX)}
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return state
    raise CheckpointError(
        f"{path}: holds {type(state).__name__}, not a flat dict of tensors; expected keys net.* and logvar.*"
    )


def _unwrapped(state: object) -> object:
    """The tensors of ``{"model": ..., "ema": ...}``, averaged where there is an average; anything else as it is.

    The average has what was trained only, with dashes for dots, as names of buffers must not hold dots.
    """
    if not isinstance(state, Mapping) or not state or not set(state) <= WRAPPER:
        return state
    model, average = (
        state[name] if isinstance(state.get(name), Mapping) else {} for name in ("model", "ema")
    )
    averaged = {str(name).replace("-", "."): value for name, value in average.items()}
    return {**model, **averaged} or state
