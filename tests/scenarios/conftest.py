"""The world of the scenarios: in this process by default, the real cluster with ``--real-cluster``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.scenario_world import CLAIM, FakeWorld, ScenarioWorld

from cosmos_operator.api.crd import build_crds


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScenarioWorld]:
    """A namespace with a claim, watched by an operator."""
    if request.config.getoption("--real-cluster"):
        yield request.getfixturevalue("real_world")
        return
    from support.fakekube import FakeKube

    with FakeKube(images=("cosmos-worker:test", "cosmos-worker-cpu:test")) as kube:
        for crd in build_crds():
            kube.install_crd(crd)
        fake = FakeWorld(tmp_path_factory.mktemp("world"), kube)
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        fake.api.call("POST", fake.api.core("persistentvolumeclaims"), claim)
        fake.start_operator()
        yield fake
        fake.stop()
        assert kube.mishaps == []


@pytest.fixture(autouse=True)
def operator_runs(world: ScenarioWorld) -> None:
    """Every scenario begins with a running operator and an open node."""
    world.restore_node()
    world.start_operator()
    world.uncordon()
