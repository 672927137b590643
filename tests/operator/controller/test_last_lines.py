"""The log of a stage that has ended is read once, and its last lines are in the status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.api_client import wait_for
from support.fakekube import FakeKube
from support.fakekube.plans import has
from support.jobs import make_document
from support.passes import passes

from cosmos_operator.api.crd import build_crd

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


def log_reads(kube: FakeKube) -> list[tuple[str, str]]:
    """Pod and number of lines of each log that was read."""
    calls = kube.calls(subresource="log")
    return [(call.name, call.query["tailLines"]) for call in calls]


async def test_log_of_an_ended_stage_is_read_once(kube, tmp_path):
    def bound() -> bool:
        claim = kube.get("persistentvolumeclaims", "cosmos")
        return claim is not None and claim.get("status", {}).get("phase") == "Bound"

    wait_for(bound)
    async with passes(kube, tmp_path) as operator:
        await operator.sync()
        await operator.reconcile("one")
        wait_for(lambda: all(has(job, "Complete") for job in kube.find("jobs.batch")))
        for _ in range(3):
            await operator.sync()
            await operator.reconcile("one")

    first = kube.find("pods", stage="fetch-model")[0]["metadata"]["name"]
    assert [lines for name, lines in log_reads(kube) if name == first] == ["20"]
    status = kube.get(PTJS, "one")["status"]
    (found,) = [one for one in status["stages"] if one["name"] == "fetch-model"]
    assert found["state"] == "Succeeded"
    assert "fetch-model done" in found["lastLines"][-1]
