"""The active deadline: time of work counts, time of waiting for people or a queue does not."""

from __future__ import annotations

from support.attempts import outcomes, run, training
from support.decisions import Simulation

LIMIT = {"runPolicy": {"activeDeadlineSeconds": 3000, "stallTimeoutSeconds": 9000}}
QUEUED = {**LIMIT, "scheduling": {"queueName": "team-a"}}


def test_suspension_does_not_count():
    simulation = training(LIMIT)
    simulation.pass_time(1000)
    simulation.settle()
    simulation.edit({"runPolicy.suspend": True})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    simulation.pass_time(86_400)
    simulation.settle()
    assert simulation.status["state"] == "Suspended"
    assert "activeSince" not in simulation.status

    simulation.edit({"runPolicy.suspend": False})
    simulation.settle()
    run(simulation, 20)
    simulation.pass_time(1900)
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running"
    simulation.pass_time(101)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "DeadlineExceeded"


def test_queue_does_not_count():
    served = frozenset({"PyTorchJob", "LocalQueue", "Workload"})
    simulation = Simulation(QUEUED, served=served)
    simulation.extra["queue_names"] = ("team-a",)
    simulation.prepare()
    assert simulation.status["state"] == "Queued"
    simulation.pass_time(86_400)
    simulation.settle()
    assert simulation.status["state"] == "Queued"

    simulation.running_attempt()["spec"]["runPolicy"]["suspend"] = False
    run(simulation, 5)
    simulation.pass_time(2990)
    simulation.settle()
    assert simulation.status["state"] == "Training"
    simulation.pass_time(20)
    simulation.settle()
    assert simulation.condition("Failed")["reason"] == "DeadlineExceeded"


def test_job_that_is_told_to_try_again_has_the_whole_time_again():
    simulation = training(LIMIT)
    simulation.pass_time(3001)
    simulation.settle()
    simulation.remove_deleted()
    assert simulation.condition("Failed")["reason"] == "DeadlineExceeded"

    simulation.edit({"runPolicy.retry": 1})
    simulation.settle()
    assert outcomes(simulation) == ["DeadlineExceeded", "Running"]
    run(simulation, 20)
    simulation.pass_time(2900)
    simulation.settle()
    assert outcomes(simulation)[-1] == "Running"
