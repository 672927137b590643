"""The API servers that the contract tests speak to: the fake one, a real one alone, and that of the real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.api_client import Api, connect, prepared
from support.fakekube import FakeKube, Timing

from cosmos_operator.api.crd import build_crd

CLUSTER = pytest.param("cluster", marks=pytest.mark.cluster)
ALL = ("fake", pytest.param("api-server", marks=pytest.mark.api_server), CLUSTER)
WITH_CONTROLLERS = ("fake", CLUSTER)


@pytest.fixture(scope="session")
def fake() -> Iterator[FakeKube]:
    """One fake cluster for all contract tests."""
    with FakeKube(kinds=(), timing=Timing()) as cluster:
        yield cluster


def connect_to(request: pytest.FixtureRequest) -> Api:
    """A client of the server that the parameter of a fixture names."""
    if request.param == "fake":
        return Api(request.getfixturevalue("fake").url)
    name = {"api-server": "api_server", "cluster": "local_cluster"}[request.param]
    return connect(request.getfixturevalue(name).kubeconfig)


@pytest.fixture(scope="session", params=ALL)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """An API server that knows PostTrainingJobs, and a namespace in it."""
    with prepared(connect_to(request), build_crd()) as found:
        yield found


@pytest.fixture(scope="session", params=WITH_CONTROLLERS)
def controlled_api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """An API server beside which controllers act on objects, such as the garbage collector."""
    with prepared(connect_to(request), build_crd()) as found:
        yield found
