"""Jobs and statuses that a newer version of the operator, or of the CRD, has left."""

from __future__ import annotations

from support.decisions import Simulation

from cosmos_operator.api.status import read_status


def test_unknown_field_is_ignored_and_told() -> None:
    simulation = Simulation()
    simulation.document["spec"]["training"]["colour"] = "red"
    decision = simulation.step()

    accepted = simulation.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "FieldsIgnored")
    assert "spec.training.colour" in accepted["message"]
    assert decision.actions, "the job is carried out"
    (event,) = [event for event in decision.events if event.reason == "FieldsIgnored"]
    assert event.is_warning


def test_words_and_fields_of_a_newer_operator_in_a_status_are_read() -> None:
    simulation = Simulation()
    simulation.settle()
    status = simulation.document["status"]
    status["state"] = "Dreaming"
    status["colour"] = "red"
    status["conditions"].append({**status["conditions"][0], "type": "Dreamt", "colour": 1})
    status["failedAttempts"] = 2

    read = read_status(simulation.document)
    assert (read.state, read.failed_attempts) == ("Dreaming", 2)
    simulation.step()
    assert simulation.status["failedAttempts"] == 2, "what the job has been through is not lost"
    assert "Dreamt" not in {one["type"] for one in simulation.status["conditions"]}


def test_training_of_a_kind_that_only_a_newer_operator_knows_is_left_alone() -> None:
    simulation = Simulation()
    simulation.settle()
    attempt = {"number": 1, "backend": "RayJob", "workload": "push-1", "outcome": "Running"}
    simulation.document["status"]["attempts"] = [attempt]
    decision = simulation.step()

    assert not decision.actions
    assert simulation.condition("Accepted")["reason"] == "BackendUnavailable"
    assert "RayJob" in simulation.condition("Accepted")["message"]
    assert simulation.attempts[0]["outcome"] == "Running"
