"""The world of the scenarios: in this process by default, the real cluster with ``--real-cluster``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.scenario_world import CLAIM, FakeWorld, ScenarioWorld

from cosmos_operator.api.crd import build_crds


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave scenarios that are marked ``in_process`` out on the real cluster, where each takes about a minute."""
    if config.getoption("--real-cluster"):
        left_out = [item for item in items if item.get_closest_marker("in_process")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


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
