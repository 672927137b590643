"""What only real machines show: GPUs as a counted resource, queues, a cluster without the training-operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_world import NAMESPACE, RealWorld
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
    (pod, *_) = real_world.pods("gpus")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    real_world.delete("gpus")


@pytest.fixture
def queue(real_world: RealWorld) -> Iterator[str]:
    """A queue of Kueue's API; its controller is not there, so nothing is admitted by itself."""
    real_world.cluster.install_kueue_api()
    queue = {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "LocalQueue",
        "metadata": {"name": "team-a", "namespace": NAMESPACE},
        "spec": {"clusterQueue": "all"},
    }
    real_world.cluster.apply(queue)
    yield "team-a"
    real_world.cluster.remove_kueue_api()


def test_queue_is_named_waited_for_and_obeyed(real_world: RealWorld, queue: str) -> None:
    backend = {"type": "Job"}
    real_world.submit("lost", backend=backend, scheduling={"queueName": "team-b"})
    real_world.submit("queued", backend=backend, scheduling={"queueName": queue})
    found = real_world.wait_condition("lost", "Admitted", "QueueNotFound")
    assert "no LocalQueue 'team-b' in this namespace (there: team-a)" in found["message"]
    real_world.delete("lost")

    real_world.wait_condition("queued", "Admitted", "QueueNotHonored")
    (workload,) = real_world.list("/apis/batch/v1 jobs", "cosmos.dev/job=queued,cosmos.dev/attempt")
    assert workload["spec"]["suspend"] is True
    assert workload["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue
    assert not real_world.pods("queued")

    admission = '{"spec": {"suspend": false}}'  # what Kueue does
    real_world.kubectl("patch", f"job/{workload['metadata']['name']}", f"--patch={admission}")
    real_world.wait_state("queued", "Succeeded")
    assert real_world.condition("queued", "Admitted")["reason"] == "QuotaReserved"


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
