"""The log of a stage that has ended is read once, and its last lines are in the status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from support.api_client import wait_for
from support.fakekube import FakeKube
from support.fakekube.plans import has
from support.jobs import make_document

from cosmos_operator.api.base import KIND
from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.kube.cluster import connect
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.settings import Settings

KEY = JobKey(KIND, "default", "one")
PTJS = "posttrainingjobs.cosmos.dev"


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube() as kube:
        kube.install_crd(build_crd())
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        claim = {"metadata": {"name": "cosmos", "namespace": "default"}, "spec": spec}
        kube.create("persistentvolumeclaims", claim)
        document = make_document({"compute": {"nodes": 1, "processesPerNode": 1}})
        document["metadata"] = {"name": "one", "namespace": "default"}
        kube.create(PTJS, document)
        yield kube


@pytest.fixture
async def reconciler(kube, tmp_path) -> AsyncIterator[Reconciler]:
    cluster = await connect(kube.write_kubeconfig(tmp_path / "kubeconfig"))
    yield Reconciler(cluster, Settings(), Metrics())
    await cluster.close()


def log_reads(kube: FakeKube) -> list[tuple[str, str]]:
    """Pod and number of lines of each log that was read."""
    calls = kube.calls(subresource="log")
    return [(call.name, call.query["tailLines"]) for call in calls]


async def test_log_of_an_ended_stage_is_read_once(kube, reconciler):
    def bound() -> bool:
        claim = kube.get("persistentvolumeclaims", "cosmos")
        return claim is not None and claim.get("status", {}).get("phase") == "Bound"

    wait_for(bound)
    await reconciler.reconcile(KEY)
    wait_for(lambda: all(has(job, "Complete") for job in kube.find("jobs.batch")))
    for _ in range(3):
        await reconciler.reconcile(KEY)

    first = kube.find("pods", stage="fetch-model")[0]["metadata"]["name"]
    assert [lines for name, lines in log_reads(kube) if name == first] == ["20"]
    status = kube.get(PTJS, "one")["status"]
    (found,) = [one for one in status["stages"] if one["name"] == "fetch-model"]
    assert found["state"] == "Succeeded"
    assert "fetch-model done" in found["lastLines"][-1]
