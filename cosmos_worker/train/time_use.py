"""Where the time of a training goes: steps, and what waits between them; and the speed of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch

from cosmos_worker.config.flops import peak_rate

Activity = Literal["data", "saving", "validating", "sampling"]
BETWEEN_STEPS: tuple[Activity, ...] = ("saving", "validating", "sampling")
"""Activities during which no step is computed; waiting for data is a part of a step."""


def peak_flops(device: torch.device) -> float | None:
    """Operations a second of the device in bfloat16; None where they are not known."""
    if device.type != "cuda":
        return None
    return peak_rate(torch.cuda.get_device_name(device))


def peak_memory_gib(device: torch.device) -> float | None:
    """The most memory that tensors had on a GPU since the last call, in GiB; None on a CPU."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return round(most / 2**30, 2)


@dataclass(frozen=True)
class Interval:
    """Some steps of a run, and the seconds that they and all between them took.

    Attributes:
        seconds: from the last report to this one.
        by_activity: seconds of each activity.
    """

    seconds: float
    by_activity: dict[Activity, float]

    @property
    def step_seconds(self) -> float:
        """Seconds of the steps, with their waiting for data."""
        return self.seconds - sum(self.by_activity.get(one, 0.0) for one in BETWEEN_STEPS)

    def shares(self) -> dict[str, float]:
        """Share of each activity in the whole time, for the log; those that took no time are left out."""
        return {
            f"share_{name}": round(spent / self.seconds, 4)
            for name, spent in self.by_activity.items()
            if spent > 0 and self.seconds > 0
        }


@dataclass
class TimeUse:
    """Measures activities of this process, from one report to the next.

    Attributes:
        clock: seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _spent: dict[Activity, float] = field(default_factory=dict)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    @contextmanager
    def of(self, activity: Activity) -> Iterator[None]:
        """Count the time of the block for an activity."""
        begin = self.clock()
        try:
            yield
        finally:
            self._spent[activity] = self._spent.get(activity, 0.0) + self.clock() - begin

    def take(self) -> Interval:
        """The time since the last call."""
        now = self.clock()
        found = Interval(now - self._since, self._spent)
        self._since, self._spent = now, {}
        return found
