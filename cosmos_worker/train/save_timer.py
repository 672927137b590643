"""The time after which a checkpoint is due, whatever number of steps has been done. No torch here."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_PER_MINUTE = 60


class SaveTimer:
    """Measures the time since the last checkpoint; the one of the main process decides for all processes.

    Args:
        minutes: time after which another checkpoint is due; None = never.
        clock: seconds from any beginning, which only grow.
    """

    def __init__(self, minutes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._minutes, self._clock = minutes, clock
        self._started_s = clock()

    def restart(self) -> None:
        """A checkpoint is being written now."""
        self._started_s = self._clock()

    @property
    def is_due(self) -> bool:
        """True if the last checkpoint is too old."""
        if self._minutes is None:
            return False
        return self._clock() - self._started_s >= self._minutes * SECONDS_PER_MINUTE
