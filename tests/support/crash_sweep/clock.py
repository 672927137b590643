"""An event loop whose time jumps to the next thing that is due, so that hours pass in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
"""The time at which every simulation begins."""


class Deadlock(Exception):  # noqa: N818 - it says what happened
    """Everything waits, and nothing is due."""


class _NextDue:
    """Selector without files: instead of waiting it lets the time pass."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self._loop.elapsed_s += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop in simulated time; the order of events depends on nothing outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._selector = _NextDue(self)
        self.tasks: list[asyncio.Task[Any]] = []
        self.errors: list[str] = []
        self.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Seconds since the simulation began."""
        return self.elapsed_s

    def now(self) -> datetime:
        """The true time."""
        return START + timedelta(seconds=self.elapsed_s)

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))

    def finish(self) -> None:
        """Cancel everything, and close."""
        for _ in range(3):
            tasks = [one for one in asyncio.all_tasks(self) if not one.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=60))
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()
        self.close()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        self.tasks = (
            [one for one in self.tasks if not one.done()] if len(self.tasks) > 200 else self.tasks
        )
        self.tasks.append(task)
        return task

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no files."""

    def _write_to_self(self) -> None:
        """There are no other threads."""
