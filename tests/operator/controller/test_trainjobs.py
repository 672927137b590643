"""Trainings as TrainJobs, carried out on what the cache keeps: with the chart's runtime, and with one of their own."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_client import wait_for
from support.fakekube import FakeKube, plans
from support.passes import make_claim, make_ptj, passes

from cosmos_operator.api.crd import build_crd

OWN_RUNTIME = {"spec": {"dnsPolicy": "Default"}}
"""A pod template that no patch of a runtime can carry."""


@pytest.mark.parametrize(
    ("template", "runtimes"), [({}, 0), (OWN_RUNTIME, 1)], ids=["chart's runtime", "own runtime"]
)
async def test_training_as_trainjob_reaches_its_end(
    template: dict[str, Any], runtimes: int, tmp_path: Any
) -> None:
    with FakeKube(kinds=("TrainJob",)) as kube:
        kube.install_crd(build_crd())
        make_claim(kube)
        wait_for(lambda: kube.get("persistentvolumeclaims", "cosmos")["status"]["phase"] == "Bound")
        kube.create("clustertrainingruntimes.trainer.kubeflow.org", plans.runtime())
        changes = {"backend": {"type": "TrainJob"}, "podTemplate": template}
        make_ptj(kube, "one", changes)
        async with passes(kube, tmp_path) as operator:
            operator.cache.served = frozenset({"TrainJob"})
            await operator.settle("one")

        status = kube.get("posttrainingjobs.cosmos.dev", "one")["status"]
        assert status["state"] == "Succeeded", status["message"]
        assert [one["backend"] for one in status["attempts"]] == ["TrainJob"]
        assert len(kube.find("trainingruntimes.trainer.kubeflow.org")) == runtimes
