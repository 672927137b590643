from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from cosmos_operator.controller.work_queue import (
    WorkQueue,
)
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.kinds import JobKey

ONE, TWO = (JobKey("PostTrainingJob", "default", name) for name in ("one", "two"))


class FakeTimer:
    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due, self.call, self.is_cancelled = due, call, False

    def cancel(self) -> None:
        self.is_cancelled = True

    def when(self) -> float:
        return self.due


class FakeScheduler:
    """Scheduler whose clock moves only in ``advance``."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(
        self, delay: float, callback: Callable[[JobKey], object], key: JobKey, /
    ) -> FakeTimer:
        self.timers.append(FakeTimer(self.now + delay, lambda: callback(key)))
        return self.timers[-1]

    def pending(self) -> list[float]:
        return sorted(timer.due for timer in self.timers if not timer.is_cancelled)

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.timers if each.due <= self.now and not each.is_cancelled]
        self.timers = [each for each in self.timers if each not in due]
        for timer in due:
            timer.call()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Passes:
    """Handler of keys whose passes the test ends one by one."""

    def __init__(self) -> None:
        self.begun: list[JobKey] = []
        self.open: dict[JobKey, asyncio.Future[float | None]] = {}

    async def handle(self, key: JobKey) -> float | None:
        assert key not in self.open, "the same key twice at a time"
        self.begun.append(key)
        self.open[key] = asyncio.get_running_loop().create_future()
        try:
            return await self.open[key]
        finally:
            del self.open[key]

    async def end(self, key: JobKey, result: float | None = None) -> None:
        self.open[key].set_result(result)
        await settle()

    async def fail(self, key: JobKey, error: Exception) -> None:
        self.open[key].set_exception(error)
        await settle()


class Rig:
    def __init__(self, workers: int = 4) -> None:
        self.passes, self.scheduler = Passes(), FakeScheduler()
        self.queue = WorkQueue(self.passes.handle, workers=workers, scheduler=self.scheduler)
        self.task = asyncio.create_task(self.queue.run())

    async def add(self, *keys: JobKey) -> None:
        for key in keys:
            self.queue.add(key)
        await settle()

    async def close(self) -> None:
        for key in list(self.passes.open):
            await self.passes.end(key)
        await self.queue.close()
        await self.task


async def test_key_runs_once_however_often_it_was_added():
    rig = Rig()

    await rig.add(ONE, ONE, ONE)
    await rig.passes.end(ONE)

    assert rig.passes.begun == [ONE]
    await rig.close()


async def test_key_added_while_it_runs_runs_once_more():
    rig = Rig()
    await rig.add(ONE)

    await rig.add(ONE, ONE)
    assert (rig.passes.begun, rig.queue.depth) == ([ONE], 1)
    await rig.passes.end(ONE)

    assert rig.passes.begun == [ONE, ONE]
    await rig.passes.end(ONE)
    assert (rig.passes.begun, rig.queue.depth) == ([ONE, ONE], 0)
    await rig.close()


async def test_different_keys_run_at_the_same_time_up_to_the_number_of_workers():
    rig = Rig(workers=2)
    three = ("other", "three")

    await rig.add(ONE, TWO, three)
    assert (rig.passes.begun, rig.queue.depth) == ([ONE, TWO], 1)
    await rig.passes.end(TWO)

    assert rig.passes.begun == [ONE, TWO, three]
    await rig.close()


async def test_new_keys_go_before_all_others_and_wait_once():
    rig = Rig(workers=1)
    three, four = (JobKey("PostTrainingJob", "default", name) for name in ("three", "four"))
    await rig.add(ONE, TWO, three)

    rig.queue.add(four, is_new=True)
    rig.queue.add(three, is_new=True)
    rig.queue.add(four)
    assert rig.queue.depth == 3
    for key in (ONE, four, three, TWO):
        await rig.passes.end(key)

    assert rig.passes.begun == [ONE, four, three, TWO]
    await rig.close()


async def test_new_key_does_not_wait_for_workers_that_are_busy():
    rig = Rig(workers=1)
    await rig.add(ONE)

    rig.queue.add(TWO, is_new=True)
    await settle()

    assert rig.passes.begun == [ONE, TWO]
    await rig.close()


async def test_earliest_of_several_times_wins():
    rig = Rig()

    rig.queue.add_after(ONE, 30)
    rig.queue.add_after(ONE, 10)
    rig.queue.add_after(ONE, 20)
    assert rig.scheduler.pending() == [10]
    await rig.scheduler.advance(9)
    assert rig.passes.begun == []
    await rig.scheduler.advance(1)

    assert rig.passes.begun == [ONE]
    await rig.close()


async def test_answer_of_a_pass_replaces_what_was_planned_before_it():
    rig = Rig()
    rig.queue.add_after(ONE, 10)

    await rig.add(ONE)
    await rig.passes.end(ONE, 60.0)

    assert rig.scheduler.pending() == [60]
    await rig.close()


async def test_failures_in_a_row_wait_twice_as_long_up_to_five_minutes(caplog):
    rig = Rig()
    await rig.add(ONE)

    waits = []
    for _ in range(12):
        await rig.passes.fail(ONE, ClusterUnavailable("down"))
        (due,) = rig.scheduler.pending()
        waits.append(due - rig.scheduler.now)
        await rig.scheduler.advance(waits[-1])

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert "job=PostTrainingJob/default/one retry_in_s=1 down" in caplog.text
    await rig.close()


async def test_success_ends_the_backoff():
    rig = Rig()
    await rig.add(ONE)
    await rig.passes.fail(ONE, ClusterUnavailable("down"))
    await rig.scheduler.advance(1)
    await rig.passes.fail(ONE, ClusterUnavailable("down"))
    await rig.scheduler.advance(2)

    await rig.passes.end(ONE)
    await rig.add(ONE)
    await rig.passes.fail(ONE, ClusterUnavailable("down"))

    assert rig.scheduler.pending() == [rig.scheduler.now + 1]
    await rig.close()


async def test_bug_is_logged_with_its_traceback_and_other_keys_go_on(caplog):
    rig = Rig(workers=1)

    await rig.add(ONE, TWO)
    await rig.passes.fail(ONE, KeyError("spec"))

    assert rig.passes.begun == [ONE, TWO]
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info
    await rig.close()


async def test_longest_run_is_that_of_the_oldest_pass():
    rig = Rig()
    assert rig.queue.longest_run_s() == 0

    await rig.add(ONE)
    await rig.scheduler.advance(100)
    await rig.add(TWO)
    await rig.scheduler.advance(5)

    assert rig.queue.longest_run_s() == 105
    await rig.close()


async def test_close_lets_passes_end_and_drops_what_waits():
    rig = Rig(workers=1)
    await rig.add(ONE, TWO)
    rig.queue.add_after(("a", "b"), 5)

    closing = asyncio.create_task(rig.queue.close(grace_s=5))
    await settle()
    await rig.passes.end(ONE)
    await closing
    rig.queue.add(TWO)

    assert rig.passes.begun == [ONE]
    assert (rig.queue.depth, rig.scheduler.pending()) == (0, [])
    await rig.task


async def test_close_cancels_passes_that_do_not_end_in_time():
    rig = Rig()
    await rig.add(ONE)

    await rig.queue.close(grace_s=0.01)

    assert rig.passes.open == {}
    with pytest.raises(asyncio.CancelledError):
        await rig.task


async def test_event_loop_is_the_scheduler_by_default():
    done = asyncio.Event()

    async def handle(_: JobKey) -> None:
        done.set()

    queue = WorkQueue(handle)
    task = asyncio.create_task(queue.run())
    queue.add_after(ONE, 0.01)
    queue.add_after(ONE, 60)
    await asyncio.wait_for(done.wait(), 5)

    await queue.close()
    await task
