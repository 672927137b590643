"""The pace at which the status of a job is written: what matters at once, the rest together a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable

from cosmos_operator.kube.kinds import JobKey, Manifest

PACE_S = 2.0
"""Seconds for which changes that do not matter at once are collected before they are written."""
URGENT_CONDITIONS = ("Accepted", "Running", "Suspended", "Succeeded", "Failed")
"""Conditions of which a change is written at once."""


class StatusPace:
    """Tells when the status of each job may be written.

    Args:
        clock: a clock that never goes back, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._differs_since: dict[JobKey, float] = {}

    def wait_s(self, job: JobKey, before: Manifest | None, after: Manifest) -> float:
        """Seconds to wait with a write; 0 if it is due.

        Args:
            job: the job.
            before: its status as it is.
            after: the status to write, which differs from it.
        """
        if _urgent(before or {}) != _urgent(after):
            self.note_write(job)
            return 0.0
        now = self._clock()
        left_s = self._differs_since.setdefault(job, now) + PACE_S - now
        if left_s <= 0:
            self.note_write(job)
        return max(0.0, left_s)

    def note_write(self, job: JobKey) -> None:
        """Take note that the status of a job is as it should be, or is written now."""
        self._differs_since.pop(job, None)

    def forget(self, job: JobKey) -> None:
        """Forget a job."""
        self.note_write(job)


def _urgent(status: Manifest) -> list[object]:
    """The parts of a status of which a change matters at once."""
    return [
        status.get("observedGeneration"),
        status.get("state"),
        *(
            (one["type"], one["status"])
            for one in status.get("conditions", ())
            if one["type"] in URGENT_CONDITIONS
        ),
        *((one["number"], one["outcome"]) for one in status.get("attempts", ())),
    ]
