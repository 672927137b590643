"""Trainings on several nodes that get only some of them do not keep them from each other for ever."""

from __future__ import annotations

from typing import Any

import pytest
from support.decisions import Simulation

from cosmos_operator.api.status import Attempt
from cosmos_operator.decide.training.backoff import partial_start_wait_s
from cosmos_operator.kube.objects import format_time

TWO_NODES = {"compute": {"nodes": 2, "processesPerNode": 1}}


def half_started(changes: dict[str, Any] | None = None) -> Simulation:
    """A job of two nodes of which only the leader has one."""
    simulation = Simulation({**TWO_NODES, **(changes or {})})
    simulation.prepare()
    _, worker = simulation.start_pods(simulation.running_attempt())
    worker["status"] = {"phase": "Pending"}
    worker["spec"].pop("nodeName")
    simulation.settle()
    return simulation


def test_nodes_are_given_back_and_tried_again() -> None:
    simulation = half_started()
    simulation.pass_time(599)
    simulation.settle()
    assert simulation.attempts[-1]["outcome"] == "Running"

    simulation.pass_time(2)
    simulation.settle()
    attempt = simulation.attempts[-1]
    assert (attempt["outcome"], attempt["counted"]) == ("PartialStart", False)
    assert "1 of 2 pods" in attempt["message"]
    simulation.remove_deleted()
    simulation.settle()
    assert simulation.workload_names("PyTorchJob") == [], "others get the node meanwhile"

    simulation.pass_time(61)
    simulation.settle()
    assert len(simulation.attempts) == 2
    assert simulation.status["failedAttempts"] == 0


@pytest.mark.parametrize("timeout", [0, 7200])
def test_time_is_that_of_the_job(timeout: int) -> None:
    simulation = half_started({"runPolicy.partialStartTimeoutSeconds": timeout})
    simulation.pass_time(7100)
    simulation.settle()

    assert simulation.attempts[-1]["outcome"] == "Running"


def test_time_counts_from_the_node_and_not_from_the_pods_creation() -> None:
    simulation = Simulation(TWO_NODES)
    simulation.prepare()
    leader, worker = simulation.start_pods(simulation.running_attempt())
    for pod in (leader, worker):
        pod["status"] = {"phase": "Pending"}
    worker["spec"].pop("nodeName")
    simulation.pass_time(3600)
    placed = {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": format_time(simulation.now),
    }
    leader["status"]["conditions"] = [placed]
    simulation.settle()

    assert simulation.attempts[-1]["outcome"] == "Running"


def test_whole_start_is_no_partial_start() -> None:
    simulation = Simulation(TWO_NODES)
    simulation.prepare()
    simulation.start_pods(simulation.running_attempt(), phase="Pending")
    simulation.pass_time(7200)
    simulation.settle()

    assert simulation.attempts[-1]["outcome"] == "Running", "images may take any time"


def test_start_deadline_still_fails_the_job() -> None:
    simulation = half_started({"runPolicy.startDeadlineSeconds": 900})
    for _ in range(4):
        simulation.pass_time(400)
        simulation.settle()
        simulation.remove_deleted()
        simulation.settle()

    assert simulation.status["state"] == "Failed"
    assert "startDeadlineSeconds" in simulation.status["message"]


def test_waits_grow_and_differ_between_jobs() -> None:
    def attempts(count: int) -> list[Attempt]:
        return [Attempt.model_construct(number=n, outcome="PartialStart") for n in range(count)]

    waits = {uid: [partial_start_wait_s(attempts(n), uid) for n in (1, 2, 3)] for uid in "abcdefgh"}
    assert len({tuple(each) for each in waits.values()}) == len(waits)
    assert all(30 <= first <= 60 for first, _, _ in waits.values())
    assert all(120 <= third <= 240 for _, _, third in waits.values())
    assert partial_start_wait_s(attempts(30), "a") <= 600
