"""Trainings in whose pods other containers live on, or fail, when the worker has ended."""

from __future__ import annotations

import pytest
from support.attempts import TWO_NODES, outcomes, report, training

from cosmos_operator.kube.objects import format_time

BACKENDS = ["Job", "PyTorchJob"]


def meshed(changes=None, backend="PyTorchJob"):
    """A training whose pods all run beside another container; returns its pods too."""
    simulation = training({**(changes or {}), "backend": {"type": backend}})
    pods = simulation.pods_of("push-1")
    for pod in pods:
        simulation.inject(pod)
    simulation.settle()
    return simulation, pods


def is_stopped(simulation):
    return "deletionTimestamp" in simulation.running_attempt()["metadata"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_has_succeeded_when_its_workers_have(backend):
    simulation, pods = meshed(TWO_NODES, backend)
    for pod in pods:
        simulation.end_pod(pod, 0, "Succeeded", step=40, checkpoint=40)
    simulation.settle()
    assert outcomes(simulation) == ["Succeeded"]
    assert not is_stopped(simulation)

    simulation.pass_time(21)
    simulation.settle()
    assert is_stopped(simulation)
    (attempt,) = simulation.attempts
    assert "'istio-proxy' did not end with the worker" in attempt["message"]
    simulation.remove_deleted()
    simulation.settle()
    assert simulation.status["state"] == "Publishing"
    assert outcomes(simulation) == ["Succeeded"]
    events = [event.reason for decision in simulation.log for event in decision.events]
    assert events.count("OtherContainersLived") == 1


def test_worker_of_another_node_gets_its_minute_after_the_leader():
    simulation, (leader, other) = meshed(TWO_NODES)
    simulation.end_pod(leader, 0, "Succeeded", step=40)
    simulation.pass_time(21)
    simulation.settle()
    assert not is_stopped(simulation)

    simulation.end_pod(other, 0, "Succeeded")
    simulation.pass_time(21)
    simulation.settle()
    assert is_stopped(simulation)
    assert outcomes(simulation) == ["Succeeded"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("exit_code", "reason", "outcome"),
    [(1, "Bug", "Crashed"), (74, "OSError", "IoFailed"), (81, "GpuFault", "GpuFault")],
)
def test_failed_worker_ends_the_attempt_which_is_stopped_whole(backend, exit_code, reason, outcome):
    simulation, (_, other) = meshed(TWO_NODES, backend)
    simulation.end_pod(other, exit_code, reason, step=12)
    simulation.settle()
    assert outcomes(simulation) == [outcome]
    assert is_stopped(simulation)

    simulation.remove_deleted()
    simulation.pass_time(600)
    simulation.settle()
    assert outcomes(simulation) == [outcome, "Running"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_mistake_of_the_user_fails_the_job(backend):
    simulation, (pod,) = meshed(backend=backend)
    simulation.end_pod(pod, 2, "DataError", message="no latents")
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()

    assert outcomes(simulation) == ["UserError"]
    assert simulation.condition("Failed")["reason"] in ("DataError", "UserError")
    assert "no latents" in simulation.status["message"]


def test_lost_peer_gives_the_others_time_to_say_why():
    simulation, (leader, other) = meshed(TWO_NODES)
    simulation.end_pod(leader, 80, "PeerLost")
    simulation.settle()
    assert outcomes(simulation) == ["Running"]
    simulation.pass_time(10)
    simulation.end_pod(other, 81, "GpuFault")
    simulation.settle()
    assert outcomes(simulation) == ["GpuFault"]


def test_lost_peer_is_not_waited_for_for_ever():
    simulation, (leader, _) = meshed(TWO_NODES)
    simulation.end_pod(leader, 80, "PeerLost")
    simulation.pass_time(61)
    simulation.settle()

    assert outcomes(simulation) == ["PeerLost"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_container_that_fails_after_the_worker_has_succeeded_does_not_fail_the_training(backend):
    simulation, (pod,) = meshed(backend=backend)
    simulation.end_pod(pod, 0, "Succeeded", step=40)
    simulation.end_sidecars(pod, 1)
    simulation.finish(simulation.running_attempt(), "Failed", "a pod failed")
    simulation.settle()

    assert outcomes(simulation) == ["Succeeded"]
    assert simulation.status["state"] == "Publishing"


def test_training_runs_beside_a_container_that_cannot_be_pulled():
    simulation, (pod,) = meshed({"runPolicy": {"startDeadlineSeconds": 60}})
    pod["status"] |= {
        "phase": "Pending",
        "containerStatuses": [
            {"name": "istio-proxy", "state": {"waiting": {"reason": "ImagePullBackOff"}}},
            {"name": "pytorch", "state": {"running": {"startedAt": format_time(simulation.now)}}},
        ],
    }
    simulation.pass_time(100)
    report(simulation, 30)
    simulation.settle()

    assert simulation.condition("Running")["status"] == "True"
    assert outcomes(simulation) == ["Running"]
