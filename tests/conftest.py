"""Options of the whole test suite."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.vectors import DEFAULT_FOLDER, vector_paths

if TYPE_CHECKING:
    from harness.cluster import LocalCluster
    from support.real_world import RealWorld

SUFFIX = "_vector_path"
HARNESS = Path(__file__).parent / "cluster"
"""The harness of the real cluster is a package beside the tests, not an installed one."""
KEEP_VARIABLE = "COSMOS_CLUSTER_KEEP"
"""Set it to leave the cluster running after the tests; the next run starts in no time, with what is in it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden from what the code gives"
    )
    parser.addoption(
        "--vectors",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="folder of reference tensors (*.safetensors) to check against",
    )
    parser.addoption(
        "--real-cluster",
        action="store_true",
        help="run tests/scenarios on the real one-node Kubernetes of tests/cluster/harness",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with an argument ``<word>_vector_path`` once per file of that word."""
    folder = metafunc.config.getoption("--vectors").resolve()
    for name in metafunc.fixturenames:
        if name.endswith(SUFFIX):
            paths = vector_paths(name.removesuffix(SUFFIX), folder)
            metafunc.parametrize(name, paths, ids=[path.stem for path in paths])


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


# --- the real cluster ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[LocalCluster]:
    """The running one-node Kubernetes. One that ran before the tests goes on running after them."""
    sys.path.insert(0, str(HARNESS))
    from harness import lifecycle, preflight
    from harness.cluster import LocalCluster

    found = preflight.problem()
    if found:
        if os.environ.get("CI"):
            pytest.fail(f"the tests of the real cluster cannot run: {found}", pytrace=False)
        pytest.skip(found)
    logging.getLogger("harness").setLevel(logging.INFO)
    ran_before = lifecycle.is_running()
    yield LocalCluster.start()
    if not ran_before and not os.environ.get(KEEP_VARIABLE):
        LocalCluster().stop()


@pytest.fixture(scope="session")
def world_without_training_operator(local_cluster: LocalCluster) -> RealWorld:
    """The cluster with the operator installed; the training-operator comes with ``real_world``."""
    from support.real_world import RealWorld

    return RealWorld(local_cluster)


@pytest.fixture(scope="session")
def real_world(world_without_training_operator: RealWorld) -> RealWorld:
    """The cluster with the operator installed, and the training-operator."""
    world = world_without_training_operator
    if not world.cluster.has_training_operator():
        world.cluster.install_training_operator()
    return world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what explains a failure on the real cluster, and say where."""
    report = yield
    if report.failed and "harness" in sys.modules:
        from harness import lifecycle
        from harness.cluster import LocalCluster
        from harness.paths import cache

        if lifecycle.is_running():
            name = re.sub(r"\W+", "-", item.nodeid).strip("-")
            folder = LocalCluster().collect(cache() / "failures" / name)
            report.sections.append(("cluster", f"logs, objects and events are in {folder}"))
    return report
