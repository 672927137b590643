"""The API servers that the contract tests speak to: the fake one, or the real one with ``--real-cluster``."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.fakekube import FakeKube, Timing
from support.fakekube.client import Api, wait_for

from cosmos_operator.api.crd import build_crd

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def _real_api(path: Path, folder: Path) -> Api:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]

    def file_of(section: dict[str, str], name: str) -> str:
        if name in section:
            return section[name]
        target = folder / name
        target.write_bytes(base64.b64decode(section[f"{name}-data"]))
        return str(target)

    return Api(
        cluster["server"],
        ca_certs=file_of(cluster, "certificate-authority"),
        cert_file=file_of(user, "client-certificate"),
        key_file=file_of(user, "client-key"),
    )


@pytest.fixture(scope="session")
def fake() -> Iterator[FakeKube]:
    """One fake cluster for all contract tests."""
    with FakeKube(kinds=(), timing=Timing()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """An API server that knows PostTrainingJobs, and a namespace in it."""
    with tempfile.TemporaryDirectory() as folder:
        if request.config.getoption("--real-cluster"):
            cluster = request.getfixturevalue("local_cluster")
            found = _real_api(cluster.kubeconfig, Path(folder))
        else:
            found = Api(request.getfixturevalue("fake").url)
        crd = build_crd()
        path = f"{CRD_PATH}/{crd['metadata']['name']}"
        if found.call("GET", path)[0] == 404:
            found.call("PATCH", path, crd, "apply", fieldManager="contract", force="true")
        wait_for(lambda: found.call("GET", "/apis/cosmos.dev/v1alpha1")[0] == 200)
        namespace = {"metadata": {"name": found.namespace}}
        assert found.call("POST", "/api/v1/namespaces", namespace)[0] == 201
        yield found
        found.call("DELETE", f"/api/v1/namespaces/{found.namespace}")
        found.pool.clear()
