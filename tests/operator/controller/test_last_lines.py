"""The last lines of a stage that has ended are in the status: those that its worker has told, or those of its log."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.api_client import wait_for
from support.fakekube import FakeKube
from support.fakekube.plans import has
from support.jobs import make_document
from support.passes import passes

from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller.log_choice import choose_logs

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


async def test_last_lines_that_the_worker_tells_need_no_log(kube, tmp_path):
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
    assert [lines for name, lines in log_reads(kube) if name == first] == []
    status = kube.get(PTJS, "one")["status"]
    (found,) = [one for one in status["stages"] if one["name"] == "fetch-model"]
    assert found["state"] == "Succeeded"
    assert "fetch-model done" in found["lastLines"][-1]


def ended_pod(exit_code: int, **said: object) -> dict[str, object]:
    message = json.dumps({"reason": "X", "message": "it ended", **said})
    state = {"terminated": {"exitCode": exit_code, "message": message}}
    return {
        "metadata": {"name": "p", "labels": {"cosmos.dev/stage": "fetch-model"}},
        "spec": {"containers": [{"name": "worker"}]},
        "status": {
            "phase": "Failed" if exit_code else "Succeeded",
            "containerStatuses": [{"name": "worker", "state": state}],
        },
    }


@pytest.mark.parametrize(
    ("pod", "told", "lines"),
    [
        (ended_pod(0, lines=["done"]), (), []),
        (ended_pod(0), (), [20]),
        (ended_pod(1, lines=["a traceback is longer"]), (), [20]),
        (ended_pod(1), ("fetch-model",), []),
    ],
)
def test_log_is_read_of_workers_that_failed_or_are_older(pod, told, lines):
    assert [number for _, number in choose_logs([pod], {}, told)] == lines
