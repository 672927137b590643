from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.tensors import (
    Unfinished,
    count_not_finite,
)

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_value_that_is_not_finite_is_counted(dtype: torch.dtype) -> None:
    draw = random.Random(0)
    for _ in range(60):
        values = torch.randn(draw.randrange(1, 300), draw.randrange(1, 40))
        bad = draw.randrange(0, min(4, values.numel() + 1))
        for at in draw.sample(range(values.numel()), bad):
            values.view(-1)[at] = draw.choice([float("nan"), float("inf"), float("-inf")])

        assert count_not_finite(values.to(dtype)) == bad


def test_largest_values_and_integers_are_finite() -> None:
    largest = torch.finfo(torch.bfloat16).max
    assert count_not_finite(torch.full((3,), largest, dtype=torch.bfloat16)) == 0
    assert count_not_finite(torch.full((3,), torch.finfo(torch.float32).max)) == 0
    assert count_not_finite(torch.arange(3)) == 0
    assert count_not_finite(torch.empty(0)) == 0


def test_tensors_are_reported_together() -> None:
    found = Unfinished()
    for name, value in (("a", 1.0), ("b", float("nan")), ("c", float("inf"))):
        found.add(name, torch.full((2,), value))

    message = r"model\.pt: 4 values in 2 tensors are NaN or infinite: b \(2\), c \(2\); a training"
    with pytest.raises(CheckpointError, match=message):
        found.check(Path("model.pt"))
