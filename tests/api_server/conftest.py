"""A real API server without a node, which knows the resources that the operator makes and reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from support.api_client import Api, connect, prepared
from support.scenario_world import Jobs

from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.cluster import connect as connect_cluster

if TYPE_CHECKING:
    from harness.api_server import ApiServer

CRD_FILES = [
    Path(__file__).parents[2] / "charts/cosmos/files" / name
    for name in ("crd.yaml", "crd-inferencejob.yaml")
]


@pytest.fixture(scope="session")
def api(api_server: ApiServer) -> Iterator[Api]:
    """The server with the chart's PostTrainingJobs and the training-operator's PyTorchJobs, and a namespace in it."""
    from harness import training_operator

    files = (*CRD_FILES, training_operator.crd_file())
    crds = [yaml.load(file.read_bytes(), yaml.CSafeLoader) for file in files]
    with prepared(connect(api_server.kubeconfig), *crds) as found:
        yield found


@pytest.fixture
async def cluster(api: Api, api_server: ApiServer) -> AsyncIterator[KubeCluster]:
    """The operator's own client, once ``api`` has installed the resources."""
    found = await connect_cluster(api_server.kubeconfig)
    yield found
    await found.close()


class ServedJobs(Jobs):
    """PostTrainingJobs of a real API server, with no operator."""

    is_real = False
    patience = 30.0

    def __init__(self, api: Api) -> None:
        self.api = api

    def operator_log(self) -> str:
        return ""


@pytest.fixture(scope="session")
def jobs(api: Api) -> Jobs:
    """The jobs in the namespace of ``api``."""
    return ServedJobs(api)
