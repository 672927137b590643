"""The queue of jobs that wait for a pass: each job runs at most once at a time, and later after failures.

Sends no requests. All methods are for the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.kinds import JobKey

Handle = Callable[[JobKey], Awaitable["float | None"]]
"""Carries out one pass over a job; returns the seconds after which it wants another one, or None."""

WORKERS = 4
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 300.0

logger = logging.getLogger(__name__)


class Timer(Protocol):
    """A call that is scheduled."""

    def cancel(self) -> None:
        """Cancel the call."""

    def when(self) -> float:
        """Time of the call, on the clock of the scheduler."""


class Scheduler(Protocol):
    """The clock of the queue; an event loop is one."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""

    def call_later(
        self, delay: float, callback: Callable[[JobKey], object], key: JobKey, /
    ) -> Timer:
        """Call back after this many seconds."""


class WorkQueue:
    """Jobs that wait for a pass, and the workers that carry passes out.

    Args:
        handle: carries out one pass.
        workers: passes that may run at the same time.
        scheduler: the clock; None = that of the running event loop.
    """

    def __init__(
        self, handle: Handle, *, workers: int = WORKERS, scheduler: Scheduler | None = None
    ) -> None:
        self._handle = handle
        self._num_workers = workers
        self._scheduler: Scheduler = scheduler or asyncio.get_running_loop()
        self._new: dict[
            JobKey, None
        ] = {}  # those that wait for their first pass, in order of arrival
        self._waiting: dict[JobKey, None] = {}  # the others that wait, in order of arrival
        self._running: dict[JobKey, float] = {}  # since when
        self._again: set[JobKey] = set()  # asked for while running
        self._timers: dict[JobKey, Timer] = {}
        self._failures: dict[JobKey, int] = {}
        self._wake_up = asyncio.Event()
        self._is_closed = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def depth(self) -> int:
        """Jobs that could run now if a worker were free."""
        return len(self._new) + len(self._waiting) + len(self._again)

    def longest_run_s(self) -> float:
        """Duration so far of the oldest pass that still runs, in seconds; 0 if none runs."""
        now = self._scheduler.time()
        return max((now - since for since in self._running.values()), default=0.0)

    def add(self, key: JobKey, *, is_new: bool = False) -> None:
        """Let a job run as soon as possible; if it runs now, once more after that.

        Args:
            key: the job.
            is_new: True for a job that has had no pass: it goes before all that had one.
        """
        if self._is_closed:
            return
        if key in self._running:
            self._again.add(key)
            return
        if is_new:
            self._waiting.pop(key, None)
            self._new.setdefault(key)
        elif key not in self._new:
            self._waiting.setdefault(key)
        self._wake_up.set()

    def add_after(self, key: JobKey, seconds: float) -> None:
        """Let a job run after this many seconds, unless it is to run earlier anyway."""
        if self._is_closed:
            return
        due = self._scheduler.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = self._scheduler.call_later(max(seconds, 0.0), self._expire, key)

    async def run(self) -> None:
        """Carry out passes until ``close``.

        As many workers again take new jobs only: a first pass does not wait for others that wait for the API server.
        """
        self._tasks = [
            asyncio.create_task(
                self._work(only_new=index >= self._num_workers), name=f"queue worker {index}"
            )
            for index in range(2 * self._num_workers)
        ]
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    async def close(self, grace_s: float = 2.0) -> None:
        """Begin no further pass, and cancel passes that do not end within the grace time.

        Jobs that wait are dropped: the operator that starts next finds them in its first list.
        """
        self._is_closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._new.clear()
        self._waiting.clear()
        self._again.clear()
        self._wake_up.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _expire(self, key: JobKey) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self, *, only_new: bool) -> None:
        while not self._is_closed:
            waiting = self._new if only_new else self._new or self._waiting
            if not waiting:
                self._wake_up.clear()
                await self._wake_up.wait()
                continue
            key = next(iter(waiting))
            del waiting[key]
            await self._pass(key)

    async def _pass(self, key: JobKey) -> None:
        """Run a job once; the answer of this pass replaces the time that an earlier pass asked for."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._running[key] = self._scheduler.time()
        try:
            after_s = await self._handle(key)
        except Exception as error:  # an edge: one job that fails must not end the queue
            after_s = self._backoff_s(key)
            _report(key, error, after_s)
        else:
            self._failures.pop(key, None)
        finally:
            del self._running[key]
        if after_s is not None:
            self.add_after(key, after_s)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _backoff_s(self, key: JobKey) -> float:
        """Seconds until a failed job runs again; they double with each failure in a row."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return float(min(FIRST_BACKOFF_S * 2 ** min(failures, 16), LONGEST_BACKOFF_S))


def _report(key: JobKey, error: Exception, after_s: float) -> None:
    if isinstance(error, OperatorError):
        logger.warning("job=%s retry_in_s=%g %s", key, after_s, " ".join(str(error).split()))
    else:
        logger.error("job=%s retry_in_s=%g a bug in the operator", key, after_s, exc_info=error)
