"""Deadlines of stages, and Jobs of stages that the operator has not made."""

from __future__ import annotations

import pytest
from support.decisions import Simulation

from cosmos_operator.decide.decision import AddOwner


def at_its_deadline(simulation: Simulation, stage: str) -> None:
    """Kubernetes ends the Job of a stage at its activeDeadlineSeconds and deletes its pods."""
    job = simulation.stage_job(stage)
    simulation.finish(job, "Failed", "Job was active longer than specified deadline")
    job["status"]["conditions"][-1]["reason"] = "DeadlineExceeded"
    for pod in simulation.pods_of(job["metadata"]["name"]):
        del simulation.pods[pod["metadata"]["name"]]


def test_stage_that_is_ended_at_its_deadline_names_the_field_to_raise() -> None:
    simulation = Simulation({"stages": {"fetchModel": {"activeDeadlineSeconds": 600}}})
    simulation.settle()
    assert simulation.stage_job("fetch-model")["spec"]["activeDeadlineSeconds"] == 600
    simulation.pass_time(601)
    at_its_deadline(simulation, "fetch-model")
    simulation.settle()

    failed = simulation.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "DeadlineExceeded")
    assert "was not done within its deadline of 600 s" in failed["message"]
    assert "spec.stages.fetchModel.activeDeadlineSeconds" in failed["message"]


def test_job_goes_on_with_a_later_deadline() -> None:
    simulation = Simulation({"stages": {"fetchModel": {"activeDeadlineSeconds": 600}}})
    simulation.settle()
    simulation.pass_time(601)
    at_its_deadline(simulation, "fetch-model")
    simulation.settle()
    simulation.pass_time(60)

    simulation.edit({"stages.fetchModel.activeDeadlineSeconds": 6000, "runPolicy.retry": 1})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    assert simulation.stage_job("fetch-model")["spec"]["activeDeadlineSeconds"] == 6000
    assert simulation.condition("Failed")["status"] == "False"


@pytest.mark.parametrize("imitated", ["nothing", "labels", "labels and template"])
def test_job_that_somebody_made_by_hand_is_not_adopted(imitated: str) -> None:
    """A Job of the right name that runs ``true`` makes nothing ready."""
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    metadata = job["metadata"]
    metadata["ownerReferences"] = []
    metadata["uid"] = "by-hand"
    worker = job["spec"]["template"]["spec"]["containers"][0]
    worker["command"] = ["true"]
    if imitated == "nothing":
        metadata["labels"] = {}
    if imitated != "labels and template":
        metadata["annotations"] = {}
    simulation.finish(job)
    decision = simulation.step()

    assert simulation.condition("ModelReady")["status"] == "False"
    assert simulation.condition("ModelReady")["reason"] == "NameConflict"
    assert not [one for one in decision.actions if isinstance(one, AddOwner) and one.kind == "Job"]


def test_job_of_another_installation_of_the_operator_is_adopted() -> None:
    simulation = Simulation()
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    job["metadata"]["ownerReferences"] = [{"uid": "another"}]
    simulation.succeed(job)
    simulation.settle()

    assert simulation.condition("ModelReady")["status"] == "True"
    assert {one["uid"] for one in job["metadata"]["ownerReferences"]} == {"another", "job-uid"}
