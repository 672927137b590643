"""A new job whose published name another job of the namespace has."""

from __future__ import annotations

from typing import Any

import pytest
from support.attempts import training
from support.decisions import Simulation
from support.jobs import make_document

EARLIER, LATER = "2026-01-31T11:00:00Z", "2026-01-31T13:00:00Z"


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    time = "2026-01-31T11:30:00Z"
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": time}


ACCEPTED = condition("Accepted", "True", "Valid")
REFUSED = [
    condition("Accepted", "False", "InvalidSpec"),
    condition("Failed", "True", "InvalidSpec"),
]
FAILED = [ACCEPTED, condition("Failed", "True", "AttemptsExhausted")]
PUBLISHED = [ACCEPTED, condition("Published", "True", "Ready")]


def other(
    conditions: list[dict[str, Any]], created: str = EARLIER, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Another job of the namespace, which publishes as ``push`` unless the changes say otherwise."""
    document = make_document({"outputs": {"name": "push"}, **(changes or {})})
    document["metadata"] = {
        "name": "first",
        "namespace": "lab",
        "uid": "other-uid",
        "creationTimestamp": created,
    }
    return {**document, "status": {"conditions": conditions}}


def simulation(*others: dict[str, Any]) -> Simulation:
    found = Simulation()
    found.extra["other_jobs"] = (*others, found.document)
    return found


@pytest.mark.parametrize("conditions", [[ACCEPTED], PUBLISHED, [*PUBLISHED, FAILED[1]]])
@pytest.mark.parametrize("created", [EARLIER, LATER])
def test_name_of_another_job_is_refused_before_anything_starts(
    conditions: list[dict[str, Any]], created: str
) -> None:
    found = simulation(other(conditions, created))

    decision = found.settle()

    assert found.status["state"] == "Failed"
    accepted = next(one for one in found.status["conditions"] if one["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PublishedNameTaken")
    assert "PostTrainingJob 'first' publishes as 'push' too" in accepted["message"]
    assert "another spec.outputs.name" in found.status["message"]
    assert not any(one.actions for one in found.log)
    assert not decision.actions


@pytest.mark.parametrize(
    "rival",
    [
        other(REFUSED),
        other(FAILED),
        other([ACCEPTED], changes={"outputs": {"name": "else"}}),
        other([ACCEPTED], changes={"storage": {"checkpoints": {"claimName": "second"}}}),
        other([ACCEPTED], changes={"storage": {"checkpoints": {"subPath": "second"}}}),
        other([], created=LATER),
    ],
)
def test_name_is_free_where_the_other_job_does_not_publish_there(rival: dict[str, Any]) -> None:
    found = simulation(rival)

    found.settle()

    assert found.status["state"] == "Preparing"


def test_job_waits_for_an_older_one_that_is_not_decided_on() -> None:
    found = simulation(other([]))

    decision = found.settle()

    assert found.status["state"] == "Pending"
    assert "waits for PostTrainingJob 'first'" in found.status["message"]
    assert decision.requeue_after_s is not None
    assert not any(one.actions for one in found.log)

    found.extra["other_jobs"] = (other(REFUSED),)
    found.settle()

    assert found.status["state"] == "Preparing"


def test_accepted_job_keeps_its_name() -> None:
    found = simulation()
    found.settle()

    found.extra["other_jobs"] = (other([ACCEPTED]),)
    found.settle()

    assert found.status["state"] == "Preparing"


@pytest.mark.parametrize("name", ["push", "free"])
def test_failed_job_that_tries_again_asks_for_its_name_again(name: str) -> None:
    """It gave the name up when it failed, and another job may have taken it since."""
    found = training({"runPolicy": {"maxAttempts": 1}, "outputs": {"name": "push"}})
    found.fail(found.running_attempt(), 1, step=20, checkpoint=20)
    found.settle()

    found.extra["other_jobs"] = (other([ACCEPTED]),)
    found.edit({"runPolicy.retry": 1, "outputs.name": name})
    found.settle()

    if name == "free":
        assert found.status["state"] == "Training"
        return
    assert found.status["state"] == "Failed"
    assert "PostTrainingJob 'first' publishes as 'push' too" in found.status["message"]
    assert [one["outcome"] for one in found.attempts] == ["Crashed"]
    assert found.status["checkpoints"]["latestStep"] == 20
