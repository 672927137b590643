"""The time of the API server, as its answers tell it, because the clock of the operator's machine may be wrong or jump.

Every time that decisions compare is written by the API server or by us. With an operator whose clock is minutes ahead,
a pod that is about to end would count as one whose node does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

TOLERANCE_S = 2.0
"""Difference in seconds from which on an answer corrects the clock: answers tell whole seconds, and take a while."""


def _own_time() -> datetime:
    return datetime.now(UTC)


class ServerClock:
    """The time of the API server; that of this machine until an answer has told it.

    Args:
        monotonic: a clock that never goes back, in seconds.
        own: the time of this machine.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        own: Callable[[], datetime] = _own_time,
    ) -> None:
        self._monotonic, self._own = monotonic, own
        self._base: datetime | None = None
        self._base_at = 0.0

    def now(self) -> datetime:
        """The time, in UTC."""
        if self._base is None:
            return self._own()
        return self._base + timedelta(seconds=self._monotonic() - self._base_at)

    def note(self, date: str | None) -> None:
        """Take note of the header ``Date`` of an answer; one that is missing or cannot be read says nothing."""
        if date is None:
            return
        try:
            told = parsedate_to_datetime(date)
        except ValueError:
            return
        if told.tzinfo is None:
            return
        if self._base is None or abs((told - self.now()).total_seconds()) > TOLERANCE_S:
            self._base, self._base_at = told.astimezone(UTC), self._monotonic()
