"""The real Kueue and the real Kubeflow Trainer v2: queues, TrainJobs, and TrainJobs in queues."""

from __future__ import annotations

from typing import Any

import pytest
from support.real_world import NAMESPACE, RealWorld

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

QUEUE = "team-a"
CLUSTER_QUEUE = "lab"
KUEUE = "kueue.x-k8s.io/v1beta2"
BACKENDS = {
    "PyTorchJob": "/apis/kubeflow.org/v1 pytorchjobs",
    "Job": "/apis/batch/v1 jobs",
    "TrainJob": "/apis/trainer.kubeflow.org/v1alpha1 trainjobs",
}


def cluster_queue(num_pods: int, stop_policy: str = "None") -> dict[str, Any]:
    """A ClusterQueue whose quota admits so many pods."""
    quotas = {"cpu": "100", "memory": "1Ti", "pods": str(num_pods)}
    resources = [{"name": name, "nominalQuota": quota} for name, quota in quotas.items()]
    group = {
        "coveredResources": list(quotas),
        "flavors": [{"name": "default", "resources": resources}],
    }
    return {
        "apiVersion": KUEUE,
        "kind": "ClusterQueue",
        "metadata": {"name": CLUSTER_QUEUE},
        "spec": {
            "namespaceSelector": {},
            "resourceGroups": [group],
            "stopPolicy": stop_policy,
        },
    }


@pytest.fixture(scope="module")
def kueue(real_world: RealWorld) -> RealWorld:
    """The cluster with Kueue, and a queue that has room for one pod; it stays until the next run of the tests."""
    cluster = real_world.cluster
    cluster.install_kueue()
    flavor = {"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": "default"}}
    queue = {
        "apiVersion": KUEUE,
        "kind": "LocalQueue",
        "metadata": {"name": QUEUE, "namespace": NAMESPACE},
        "spec": {"clusterQueue": CLUSTER_QUEUE},
    }
    cluster.apply(flavor, cluster_queue(1), queue)
    return real_world


@pytest.fixture(scope="module")
def trainer(real_world: RealWorld) -> RealWorld:
    """The cluster with Trainer v2, and the chart with its runtime; both stay until the next run of the tests."""
    real_world.cluster.install_trainer()
    real_world.install("--set=trainer.runtime.create=true")
    return real_world


def test_queue_that_does_not_exist_is_named(kueue: RealWorld) -> None:
    kueue.submit("lost", scheduling={"queueName": "team-b"})

    found = kueue.wait_condition("lost", "Admitted", "QueueNotFound")

    assert f"no LocalQueue 'team-b' in this namespace (there: {QUEUE})" in found["message"]
    assert not kueue.pods("lost")
    kueue.delete("lost")


@pytest.mark.parametrize("kind", BACKENDS)
def test_training_waits_for_its_turn_is_stopped_for_others_and_goes_on(
    kueue: RealWorld, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "TrainJob":
        request.getfixturevalue("trainer")
    name = f"queued-{kind.lower()}"
    kueue.cluster.apply(cluster_queue(1))
    kueue.submit(name, **kueue.endless, backend={"type": kind}, scheduling={"queueName": QUEUE})

    kueue.wait(
        "Kueue says why",
        lambda: (
            "insufficient quota for pods" in kueue.condition(name, "Admitted").get("message", "")
        ),
    )
    assert kueue.condition(name, "Admitted")["reason"] == "QuotaPending"
    assert kueue.status(name)["state"] == "Queued"
    assert not kueue.pods(name)

    kueue.cluster.apply(cluster_queue(2))
    kueue.wait_step(name, 10)
    assert kueue.condition(name, "Admitted")["reason"] == "QuotaReserved"

    kueue.cluster.apply(cluster_queue(2, stop_policy="HoldAndDrain"))
    kueue.wait("its pods are gone", lambda: not kueue.pods(name))
    stopped = kueue.wait_state(name, "Queued")
    saved = stopped["checkpoints"]["latestStep"]
    assert saved >= 10, "it saved when it was stopped"

    kueue.cluster.apply(cluster_queue(2))
    status = kueue.wait_step(name, saved + 5)
    (attempt,) = status["attempts"]
    assert attempt["outcome"] == "Running"
    assert status["failedAttempts"] == 0
    (workload,) = kueue.list(BACKENDS[kind], f"cosmos.dev/job={name},cosmos.dev/attempt=1")
    assert workload["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == QUEUE
    kueue.delete(name)
    kueue.wait("all that it owned is gone", lambda: not kueue.owned(name))


def test_trainjob_trains_on_two_nodes_and_is_begun_again_when_a_worker_dies(
    trainer: RealWorld,
) -> None:
    training = trainer.document("trainjob")["spec"]["training"] | {"steps": 100}
    compute = {"nodes": 2, "processesPerNode": 1}
    trainer.submit("trainjob", backend={"type": "TrainJob"}, training=training, compute=compute)
    trainer.wait_step("trainjob", 15)
    (workload,) = trainer.list(BACKENDS["TrainJob"], "cosmos.dev/job=trainjob")
    assert workload["spec"]["trainer"]["numNodes"] == 2
    assert len(trainer.pods("trainjob", running=True)) == 2

    trainer.kill_process(trainer.workers("trainjob")[-1]["metadata"]["name"])

    status = trainer.wait_state("trainjob", "Succeeded")
    first, second = status["attempts"]
    assert (first["backend"], first["outcome"]) == ("TrainJob", "Crashed")
    assert "SIGKILL" in first["message"]
    assert second["outcome"] == "Succeeded"
    assert second["startStep"] >= 10, "it continued from a checkpoint"
    trainer.delete("trainjob")
    trainer.wait("all that it owned is gone", lambda: not trainer.owned("trainjob"))


def test_auto_takes_a_kind_that_a_newer_kueue_manages(kueue: RealWorld) -> None:
    """Its default configuration leaves PyTorchJobs alone, so that one in a queue would wait for ever."""
    from harness.constants import NEWEST_KUEUE_VERSION

    kueue.cluster.install_kueue(NEWEST_KUEUE_VERSION)
    kueue.cluster.apply(cluster_queue(2))
    name = "newer-kueue"

    kueue.submit(name, **kueue.endless, backend={"type": "Auto"}, scheduling={"queueName": QUEUE})

    status = kueue.wait_step(name, 5)
    assert [one["backend"] for one in status["attempts"]] == ["Job"]
    assert kueue.condition(name, "Admitted")["reason"] == "QuotaReserved"
    kueue.delete(name)
