"""A job that has ended: what runs is stopped, pods stay for a while, then all objects go and the status stays."""

from __future__ import annotations

import copy

import pytest
from support.attempts import training
from support.decisions import Simulation

from cosmos_operator.decide.decision import GiveUp


def finish(simulation: Simulation) -> Simulation:
    """Let all workloads succeed until the job has ended."""
    for _ in range(8):
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, result={"videos": 3})
        simulation.settle()
    assert simulation.status["state"] == "Succeeded"
    return simulation


def test_pods_stay_for_their_logs_and_then_everything_goes_but_the_status():
    simulation = finish(Simulation())
    before = copy.deepcopy(simulation.status)
    assert simulation.decide().actions == ()
    assert simulation.decide().requeue_after_s == pytest.approx(3600, abs=1)

    simulation.pass_time(3601)
    simulation.settle()

    assert {kind for kind, _ in simulation.objects} == {"PersistentVolumeClaim"}
    assert simulation.status == before
    assert simulation.decide().requeue_after_s is None


def test_object_that_another_job_uses_stays_for_that():
    simulation = finish(Simulation())
    job = simulation.stage_job("embed-text")
    job["metadata"]["ownerReferences"].append({"uid": "another"})
    simulation.pass_time(3601)
    actions = simulation.decide().actions

    assert ("Job", job["metadata"]["name"]) in [
        (a.kind, a.name) for a in actions if isinstance(a, GiveUp)
    ]
    simulation.settle()
    assert job["metadata"]["ownerReferences"] == [{"uid": "another"}]
    assert "deletionTimestamp" not in job["metadata"]


def test_job_that_ended_does_not_need_its_objects_when_it_is_changed():
    simulation = finish(Simulation())
    simulation.pass_time(3601)
    simulation.settle()
    simulation.document["metadata"]["generation"] += 1
    simulation.settle()

    assert simulation.status["state"] == "Succeeded"
    assert simulation.workload_names() == []


def test_failed_training_can_go_on_when_its_objects_are_gone():
    simulation = training({"runPolicy": {"maxAttempts": 1}})
    simulation.fail(simulation.running_attempt(), 1, step=12, checkpoint=10)
    simulation.settle()
    assert simulation.status["state"] == "Failed"
    simulation.pass_time(3601)
    simulation.settle()
    assert simulation.workload_names() == []

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    assert [one["outcome"] for one in simulation.attempts] == ["Crashed", "Running"]
    assert simulation.attempts[-1]["startStep"] == 10
