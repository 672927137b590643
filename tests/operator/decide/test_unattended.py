"""Workloads that nobody carries out: after a stated time the status says so, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from support.decisions import Simulation

from cosmos_operator.kube.objects import format_time

GRACE_S = 60
KUEUE = frozenset({"LocalQueue", "Workload"})


def waiting(changes: dict[str, Any], **options: Any) -> Simulation:
    """A job whose training's workload has been created, and of which nobody takes notice."""
    simulation = Simulation(changes, attended=False, **options)
    simulation.prepare()
    return simulation


def test_pytorchjob_that_nothing_carries_out_is_named() -> None:
    simulation = waiting({"backend.type": "PyTorchJob"})
    simulation.pass_time(GRACE_S - 1)
    simulation.settle()
    assert simulation.condition("Running")["reason"] == "Starting"

    simulation.pass_time(2)
    simulation.settle()
    running = simulation.condition("Running")
    assert running["reason"] == "Unattended"
    assert "PyTorchJob push-1" in running["message"]
    assert "training-operator" in simulation.status["message"]


def test_advice_for_a_pytorchjob_that_nothing_carries_out_works() -> None:
    simulation = waiting({"backend.type": "PyTorchJob"})
    simulation.pass_time(GRACE_S + 1)
    simulation.settle()
    assert "spec.backend.type: Job" in simulation.condition("Running")["message"]

    simulation.edit({"backend.type": "Job"})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    assert simulation.attempts[-1]["backend"] == "Job"
    assert simulation.workload_names("PyTorchJob") == []


def test_auto_takes_a_job_where_nothing_carries_out_pytorchjobs() -> None:
    simulation = waiting({"backend.type": "Auto"})
    simulation.pass_time(GRACE_S + 1)
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    first, second = simulation.attempts
    assert (first["backend"], first["outcome"], first["counted"]) == (
        "PyTorchJob",
        "Unattended",
        False,
    )
    assert second["backend"] == "Job"
    simulation.pass_time(GRACE_S)
    simulation.settle()
    assert len(simulation.attempts) == 2, "it stays with the Job"


def test_auto_keeps_a_pytorchjob_that_its_controller_has_noticed() -> None:
    simulation = waiting({"backend.type": "Auto"})
    workload = simulation.running_attempt()
    workload["status"] = {"conditions": [{"type": "Created", "status": "True"}]}
    simulation.pass_time(10 * GRACE_S)
    simulation.settle()

    assert simulation.attempts[-1]["outcome"] == "Running"


@pytest.mark.parametrize("served", [frozenset(), KUEUE])
def test_stage_that_somebody_else_suspends_is_named(served: frozenset[str]) -> None:
    simulation = Simulation(served=served)
    simulation.settle()
    simulation.stage_job("fetch-model")["spec"]["suspend"] = True
    simulation.pass_time(GRACE_S + 1)
    simulation.settle()

    admitted = simulation.condition("Admitted")
    assert (admitted["status"], admitted["reason"]) == ("False", "HeldWithoutQueue")
    assert ("manageJobsWithoutQueueName" in admitted["message"]) == bool(served)
    assert simulation.status["state"] == "Queued"
    assert simulation.status["message"] == admitted["message"]


def test_stage_that_kueue_holds_for_want_of_quota_says_kueues_words() -> None:
    simulation = Simulation(served=KUEUE)
    simulation.settle()
    job = simulation.stage_job("fetch-model")
    job["spec"]["suspend"] = True
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
    quota = {"type": "QuotaReserved", "status": "False", "message": "no quota for pods"}
    simulation.extra["queue_workloads"] = (
        {
            "metadata": {"name": "w", "ownerReferences": [{"uid": job["metadata"]["uid"]}]},
            "status": {"conditions": [quota]},
        },
    )
    simulation.pass_time(GRACE_S + 1)
    decision = simulation.step()

    admitted = simulation.condition("Admitted")
    assert admitted["reason"] == "QuotaPending"
    assert admitted["message"] == "waits in queue 'default': no quota for pods"
    assert not decision.actions, "a Job in the default queue is not made again and again"


def test_trainjob_that_fails_without_pods_is_counted_and_named() -> None:
    simulation = waiting({"backend.type": "TrainJob"}, served=frozenset({"TrainJob"}))
    for _ in range(2):
        simulation.running_attempt()["status"] = {
            "conditions": [
                {
                    "type": "Failed",
                    "status": "True",
                    "reason": "TrainingRuntimeNotSupported",
                    "message": "runtime cosmos-torch is not there",
                    "lastTransitionTime": format_time(simulation.now),
                }
            ]
        }
        simulation.settle()
        simulation.pass_time(400)
        simulation.settle()

    assert [one["outcome"] for one in simulation.attempts] == ["NotStarted", "NotStarted"]
    assert simulation.status["state"] == "Failed"
    assert "runtime cosmos-torch is not there" in simulation.status["message"]


def test_webhook_that_does_not_answer_is_told_with_what_to_do() -> None:
    refusal = 'Internal error occurred: failed calling webhook "validator.pytorchjob"'
    simulation = waiting({"backend.type": "PyTorchJob"})
    del simulation.objects["PyTorchJob", "push-1"]
    simulation.document["status"]["attempts"][0].pop("startTime", None)
    simulation.extra["refusals"] = {("PyTorchJob", "push-1"): refusal}
    simulation.step()

    message = simulation.condition("Running")["message"]
    assert refusal in message
    assert "start the program" in message
    assert "spec.backend.type: Job" in message

    simulation.edit({"backend.type": "Job"})
    simulation.settle()
    assert simulation.attempts[-1]["backend"] == "Job"
    assert simulation.workload_names("Job")


@pytest.mark.parametrize("kind", ["PyTorchJob", "TrainJob"])
def test_workload_that_was_noticed_but_never_has_a_pod_is_named(kind: str) -> None:
    """As a TrainJob whose JobSet nobody carries out."""
    simulation = Simulation({"backend.type": kind}, served=frozenset({kind}))
    simulation.prepare()
    simulation.pass_time(299)
    simulation.settle()
    assert simulation.condition("Running")["reason"] == "Starting"

    simulation.pass_time(2)
    simulation.settle()
    running = simulation.condition("Running")
    assert running["reason"] == "Unattended"
    assert f"kubectl describe {kind.lower()} push-1" in running["message"]
    assert ("JobSet" in running["message"]) == (kind == "TrainJob")


@pytest.mark.parametrize("stage", ["fetch-model", "train"])
def test_pod_that_no_scheduler_looks_at_is_named(stage: str) -> None:
    changes = {"podTemplate": {"spec": {"schedulerName": "volcano"}}, "backend.type": "Job"}
    simulation = Simulation(changes)
    if stage == "train":
        simulation.prepare()
        workload = simulation.running_attempt()
    else:
        simulation.settle()
        workload = simulation.stage_job(stage)
    (pod,) = simulation.start_pods(workload, phase="Pending")
    del pod["spec"]["nodeName"]
    kind = "Running" if stage == "train" else "ModelReady"
    simulation.pass_time(GRACE_S - 1)
    simulation.settle()
    assert simulation.condition(kind)["reason"] in ("Starting", "InProgress")

    simulation.pass_time(2)
    simulation.settle()
    found = simulation.condition(kind)
    assert (found["status"], found["reason"]) == ("False", "Unattended")
    assert "start the scheduler 'volcano'" in found["message"]
