"""Where the time of a training goes."""

from __future__ import annotations

import pytest
import torch

from cosmos_worker.train.time_use import Interval, TimeUse, peak_flops


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_steps_take_what_saving_and_validating_leave() -> None:
    clock = Clock()
    use = TimeUse(clock)
    with use.of("data"):
        clock.now += 1
    with use.of("validating"):
        clock.now += 30
    with use.of("validating"):
        clock.now += 10
    clock.now += 9

    found = use.take()

    assert found == Interval(50, {"data": 1, "validating": 40})
    assert found.step_seconds == 10  # with the second that they waited for data
    assert found.shares() == {"share_data": 0.02, "share_validating": 0.8}


def test_time_that_was_taken_is_not_counted_again() -> None:
    clock = Clock()
    use = TimeUse(clock)
    with use.of("saving"):
        clock.now += 5
    use.take()
    clock.now += 2

    assert use.take() == Interval(2, {})


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peak_is_that_of_the_named_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)

    assert peak_flops(torch.device("cuda")) == peak
    assert peak_flops(torch.device("cpu")) is None
