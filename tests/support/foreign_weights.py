"""The small network's weights under the names of other trainers, and a check that they load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.weights.load import load_model
from support.training import SMALL_NET, small_model

State = dict[str, Tensor]


def weights(seed: int = 0) -> State:
    return dict(small_model(seed).state_dict())


def check_loads(path: Path, expected: Mapping[str, Tensor] | None = None) -> None:
    loaded = load_model(path, SMALL_NET).state_dict()
    for name, value in (expected or weights()).items():
        assert torch.equal(loaded[name], value), name


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}
