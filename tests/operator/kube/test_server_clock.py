"""The time of the API server, from its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from support.scripted_api import Answer, scripted_api

from cosmos_operator.kube.server_clock import ServerClock

OWN = datetime(2026, 6, 1, tzinfo=UTC)
TOLD = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
DATE = "Sat, 31 Jan 2026 12:00:00 GMT"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic() -> Clock:
    return Clock()


@pytest.fixture
def clock(monotonic: Clock) -> ServerClock:
    return ServerClock(monotonic, lambda: OWN)


def test_time_is_that_of_the_machine_until_an_answer_has_told_it(clock):
    assert clock.now() == OWN


def test_time_goes_on_from_an_answer_whatever_the_machine_says(clock, monotonic):
    clock.note(DATE)
    monotonic.seconds = 90

    assert clock.now() == TOLD + timedelta(seconds=90)


def test_answers_within_the_tolerance_do_not_let_the_time_go_back(clock, monotonic):
    clock.note(DATE)
    monotonic.seconds = 1.9
    clock.note(DATE)  # on its way for 1.9 s

    assert clock.now() == TOLD + timedelta(seconds=1.9)


def test_later_answer_corrects_the_time(clock, monotonic):
    clock.note(DATE)
    clock.note("Sat, 31 Jan 2026 13:00:00 GMT")

    assert clock.now() == TOLD + timedelta(hours=1)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 31 Jan 2026 12:00:00 -0000"])
def test_date_that_says_nothing_is_passed_over(clock, date):
    clock.note(date)

    assert clock.now() == OWN


async def test_client_takes_the_time_of_answers():
    async with scripted_api() as rig:
        rig.cluster._client.clock = ServerClock(own=lambda: datetime(2000, 1, 1, tzinfo=UTC))
        assert rig.cluster.now().year == 2000
        rig.api.on("GET /api/v1/namespaces/lab/pods/x", Answer(200, {"kind": "Pod"}))
        await rig.cluster.get("Pod", "lab", "x")

        assert rig.cluster.now().year > 2000
