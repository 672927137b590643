"""An operator with a CustomResourceDefinition of an earlier version, on a real API server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from support.api_client import Api, condition, make_job

from cosmos_operator.api.base import KIND
from cosmos_operator.api.crd import build_crd
from cosmos_operator.controller.served_crd import ServedCrd
from cosmos_operator.errors import Refused
from cosmos_operator.kube.cluster import KubeCluster

pytestmark = pytest.mark.api_server

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/posttrainingjobs.cosmos.dev"


def older_crd() -> dict[str, Any]:
    """One without the field ``stages`` of the status, and with a closed set of conditions."""
    crd = copy.deepcopy(build_crd())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del schema["properties"]["stages"]
    kinds = schema["properties"]["conditions"]["items"]["properties"]["type"]
    kinds["enum"] = ["Accepted", "Running", "Succeeded", "Failed"]
    return crd


def install(api: Api, crd: dict[str, Any]) -> None:
    code, found = api.call("GET", CRD)
    assert code == 200
    version = found["metadata"]["resourceVersion"]
    body = {**crd, "metadata": {**crd["metadata"], "resourceVersion": version}}
    code, answer = api.call("PUT", CRD, body)
    assert code == 200, answer


@pytest.fixture
def older(api: Api) -> Iterator[Api]:
    install(api, older_crd())
    yield api
    install(api, build_crd())


async def served(cluster: KubeCluster, *, lacks: bool) -> ServedCrd:
    """The schemas once the API server tells those of the CustomResourceDefinition that was installed last."""
    for _ in range(100):
        crd = ServedCrd(cluster)
        await crd.refresh()
        if await cluster.served_schema(KIND) and bool(crd.problem(KIND)) == lacks:
            return crd
        await asyncio.sleep(0.2)
    raise AssertionError("the API server does not tell its new schema")


async def test_schema_of_this_version_lacks_nothing(api: Api, cluster: KubeCluster) -> None:
    assert not (await served(cluster, lacks=False)).problem(KIND)
    schema = await cluster.served_schema(KIND)
    assert schema is not None
    assert "stages" in schema["properties"]["status"]["properties"]


async def test_status_is_written_without_what_the_api_server_lacks(
    older: Api, cluster: KubeCluster
) -> None:
    crd = await served(cluster, lacks=True)
    assert "status.stages" in crd.problem(KIND)
    _, made = make_job(older)
    names = ("name", "namespace", "uid", "resourceVersion")
    status = {
        "state": "Preparing",
        "stages": [{"name": "fetch-model", "state": "Succeeded"}],
        "conditions": [condition("Accepted"), condition("LatentsReady")],
    }
    document = {
        "apiVersion": made["apiVersion"],
        "kind": KIND,
        "metadata": {name: made["metadata"][name] for name in names},
    }

    with pytest.raises(Refused):
        await cluster.apply_status({**document, "status": status})
    written = await cluster.apply_status({**document, "status": crd.fit(KIND, status)})

    assert written["status"]["state"] == "Preparing"
    assert [one["type"] for one in written["status"]["conditions"]] == ["Accepted"]
    assert "stages" not in written["status"]
