"""Resources of real nodes: GPUs as a counted resource, memory limits, a cluster without the training-operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.real_world import RealWorld
from support.scenario_world import ITEM, Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def gpus(real_world: RealWorld) -> Iterator[int]:
    """Four GPUs in the node's allocatable resources."""
    real_world.cluster.set_gpus(4)
    yield 4
    real_world.cluster.set_gpus(0)


def test_pods_with_gpus_are_placed_and_those_of_another_attempt_elsewhere(
    real_world: RealWorld, gpus: int
) -> None:
    """A GPU without a driver does not count as a crash; the next attempt avoids its node if there is another."""
    image = real_world.images["cosmos-worker-cpu"]
    compute = {"nodes": 1, "gpusPerNode": 2, "image": image, "preparation": {"gpus": 0}}
    real_world.submit("gpus", compute=compute, runPolicy={"maxAttempts": 1})
    (pod,) = real_world.wait("its pod is placed", lambda: placed(real_world, "gpus"))
    assert pod["spec"]["nodeName"] == "node1"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"

    with real_world.cluster.add_silent_node("node2", gpus):
        real_world.wait(
            "one is placed on the other node",
            lambda: [
                pod for pod in placed(real_world, "gpus") if pod["spec"]["nodeName"] == "node2"
            ],
        )
        *ended, running = real_world.status("gpus")["attempts"]
        assert ended
        for attempt in ended:
            found = attempt["outcome"], attempt["counted"], attempt["node"]
            assert found == ("GpuFault", False, "node1")
        assert running["outcome"] == "Running"
        real_world.delete("gpus")


def placed(world: RealWorld, name: str) -> list[Manifest]:
    """Training pods of a job that are scheduled."""
    return [pod for pod in world.pods(name) if pod["spec"].get("nodeName")]


def test_training_that_needs_more_memory_than_its_pod_has_says_so(real_world: RealWorld) -> None:
    """The kernel kills one of several processes of the pod, and seldom the first."""
    little = {"limits": {"memory": "420Mi"}}
    real_world.submit(
        "little-memory",
        compute={"nodes": 1, "processesPerNode": 2, "sharedMemory": "64Mi", "resources": little},
        runPolicy={"maxAttempts": 1},
    )
    status = real_world.wait_state("little-memory", "Suspended")

    (attempt,) = status["attempts"]
    assert (attempt["outcome"], attempt["counted"]) == ("OutOfMemory", True)
    assert "spec.compute.resources.limits.memory" in status["message"]
    real_world.delete("little-memory")


def test_cluster_without_the_training_operator(
    world_without_training_operator: RealWorld,
) -> None:
    world = world_without_training_operator
    if world.cluster.has_training_operator():
        world.cluster.remove_training_operator()
    try:
        world.submit("asks-pytorchjob", backend={"type": "PyTorchJob"})
        found = world.wait_condition("asks-pytorchjob", "Accepted", "BackendUnavailable")
        assert "pytorchjobs.kubeflow.org" in found["message"]
        assert "one that this cluster has (Job)" in found["message"]

        compute = {"nodes": 2, "processesPerNode": 1}
        world.submit("asks-nothing", compute=compute, inference=[ITEM])
        status = world.wait_state("asks-nothing", "Succeeded")
        assert status["attempts"][0]["backend"] == "Job"
        address = status["inference"][0]["address"].replace("://", "/")
        assert list((world.folder / address).glob("*.mp4"))
    finally:
        world.cluster.install_training_operator()
    world.wait_step("asks-pytorchjob", 10)
    world.delete("asks-pytorchjob")
