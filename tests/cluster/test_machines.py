"""What only real machines show: GPUs as a counted resource, a cluster without the training-operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_world import RealWorld
from scenario_world import ITEM

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def gpus(real_world: RealWorld) -> Iterator[int]:
    """The node says that it has four GPUs."""
    real_world.cluster.set_gpus(4)
    yield 4
    real_world.cluster.set_gpus(0)


def test_pods_with_gpus_are_placed_and_a_missing_driver_is_no_crash(
    real_world: RealWorld, gpus: int
) -> None:
    image = real_world.images["cosmos-worker-cpu"]
    compute = {"nodes": 1, "gpusPerNode": 2, "image": image, "preparation": {"gpus": 0}}
    real_world.submit("gpus", compute=compute, runPolicy={"maxAttempts": 1})
    status = real_world.wait(
        "the first attempt ends",
        lambda: (
            (s := real_world.status("gpus"))
            and s.get("attempts")
            and s["attempts"][0]["outcome"] != "Running"
            and s
        ),
    )

    first = status["attempts"][0]
    assert (first["outcome"], first["counted"], first["node"]) == ("GpuFault", False, "node1")
    # another attempt may be about to begin, since this one is not counted
    pod, *_ = real_world.wait("its pod is there", lambda: real_world.pods("gpus"))
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    real_world.delete("gpus")


def test_training_that_needs_more_memory_than_its_pod_has_says_so(real_world: RealWorld) -> None:
    """The kernel kills one of several processes of the pod, and seldom the first."""
    little = {"limits": {"memory": "420Mi"}}
    real_world.submit(
        "little-memory",
        compute={"nodes": 1, "processesPerNode": 2, "sharedMemory": "64Mi", "resources": little},
        runPolicy={"maxAttempts": 1},
    )
    status = real_world.wait_state("little-memory", "Failed")

    (attempt,) = status["attempts"]
    assert (attempt["outcome"], attempt["counted"]) == ("OutOfMemory", True)
    assert "memory" in status["message"]
    real_world.delete("little-memory")


def test_cluster_without_the_training_operator(real_world: RealWorld) -> None:
    real_world.cluster.remove_training_operator()
    try:
        real_world.submit("asks-pytorchjob", backend={"type": "PyTorchJob"})
        found = real_world.wait_condition("asks-pytorchjob", "Accepted", "BackendUnavailable")
        assert "pytorchjobs.kubeflow.org" in found["message"]
        assert "this cluster has: Job" in found["message"]

        compute = {"nodes": 2, "processesPerNode": 1}
        real_world.submit("asks-nothing", compute=compute, inference=[ITEM])
        status = real_world.wait_state("asks-nothing", "Succeeded")
        assert status["attempts"][0]["backend"] == "Job"
        address = status["inference"][0]["address"].replace("://", "/")
        assert list((real_world.folder / address).glob("*.mp4"))
    finally:
        real_world.cluster.install_training_operator()
    real_world.wait_step("asks-pytorchjob", 10)
    real_world.delete("asks-pytorchjob")
