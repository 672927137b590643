from __future__ import annotations

from typing import Any

import pytest

from cosmos_operator.controller.status_pace import PACE_S, StatusPace
from cosmos_operator.kube.kinds import JobKey

JOB = JobKey("PostTrainingJob", "n", "one")
READY = {"type": "ModelReady", "status": "True"}
RUNNING = {"type": "Running", "status": "True"}
BEFORE: dict[str, Any] = {"state": "Preparing", "observedGeneration": 1, "message": "a"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "change",
    [
        {"state": "Training"},
        {"observedGeneration": 2},
        {"conditions": [RUNNING]},
        {"attempts": [{"number": 1, "outcome": "Running"}]},
    ],
)
def test_what_matters_is_written_at_once(change):
    assert StatusPace(Clock()).wait_s(JOB, BEFORE, BEFORE | change) == 0


def test_first_status_is_written_at_once():
    assert StatusPace(Clock()).wait_s(JOB, None, BEFORE) == 0


def test_other_changes_are_collected_for_a_moment_and_then_written_together():
    clock = Clock()
    pace = StatusPace(clock)
    assert pace.wait_s(JOB, BEFORE, BEFORE | {"message": "b"}) == PACE_S
    clock.now += 0.5
    assert pace.wait_s(JOB, BEFORE, BEFORE | {"conditions": [READY]}) == PACE_S - 0.5
    clock.now += 2
    assert pace.wait_s(JOB, BEFORE, BEFORE | {"conditions": [READY]}) == 0

    assert pace.wait_s(JOB, BEFORE, BEFORE | {"message": "c"}) == PACE_S, "begins anew"


def test_change_that_is_taken_back_does_not_hasten_the_next():
    clock = Clock()
    pace = StatusPace(clock)
    pace.wait_s(JOB, BEFORE, BEFORE | {"message": "b"})
    pace.note_write(JOB)
    clock.now += 60

    assert pace.wait_s(JOB, BEFORE, BEFORE | {"message": "c"}) == PACE_S
