"""Plans are made in a process that can be ended: no job stops the operator for the others."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
from support.jobs import make_document

from cosmos_operator.controller.planning_process import (
    InlinePlanner,
    PlanningFailed,
    PlanningProcess,
)
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.settings import Settings

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def document() -> Manifest:
    found = make_document()
    found["metadata"] |= {"namespace": "default", "uid": "u"}
    return found


@pytest.fixture
async def planner() -> AsyncIterator[PlanningProcess]:
    made = PlanningProcess(limit_s=30)
    yield made
    await made.stop()


async def test_plan_is_that_of_this_process(planner, document):
    plan = await planner.run(plan_job, document, Settings())

    assert plan == plan_job(document, Settings())
    assert plan.stages


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (bytes, (1 << 30,), "it takes more memory than a plan may"),
        (int, ("x",), "a bug in the operator, please report it: ValueError: invalid literal"),
        (os._exit, (3,), "its planning was ended with exit code 3"),
        (os.abort, (), "its planning was ended with exit code -6"),
    ],
    ids=["memory", "error", "exit", "signal"],
)
async def test_failure_ends_one_plan_and_the_next_is_made(
    planner, document, function, arguments, message
):
    with pytest.raises(PlanningFailed, match=message):
        await planner.run(function, *arguments)

    assert (await planner.run(plan_job, document, Settings())).stages


async def test_endless_plan_is_ended_while_the_loop_goes_on(document):
    planner = PlanningProcess(limit_s=0.5)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counting = asyncio.create_task(count())
    try:
        with pytest.raises(PlanningFailed, match=r"it takes longer than 0\.5 s"):
            await planner.run(time.sleep, 3600)
    finally:
        counting.cancel()
        await planner.stop()
    assert turns > 5


async def test_plan_that_is_cancelled_leaves_no_answer_for_the_next(planner, document):
    task = asyncio.create_task(planner.run(time.sleep, 3600))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await planner.run(plan_job, document, Settings())).stages


async def test_error_in_this_process_is_said_the_same_way():
    with pytest.raises(PlanningFailed, match="a bug in the operator, please report it: ValueError"):
        await InlinePlanner().run(int, "x")
