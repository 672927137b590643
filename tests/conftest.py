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
    from harness.api_server import ApiServer
    from harness.cluster import LocalCluster
    from support.real_world import RealWorld

SUFFIX = "_vector_path"
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
    parser.addoption(
        "--require-api-server",
        action="store_true",
        help="an error, instead of tests left out, where the programs of the real API server are missing",
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
    """True if golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


# --- the real API server ------------------------------------------------------------------------

LEFT_OUT = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)  # once those of other markers are gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests of the real API server where its programs are missing.

    Raises:
        pytest.UsageError: the same with ``--require-api-server``.
    """
    chosen = [item for item in items if item.get_closest_marker("api_server")]
    if not chosen:
        return
    from harness import api_server

    missing = ", ".join(api_server.missing())
    if not missing:
        return
    if config.getoption("--require-api-server"):
        raise pytest.UsageError(f"the tests of the real API server cannot run without {missing}")
    config.stash[LEFT_OUT] = (
        f"left out: {len(chosen)} tests of the real API server, for want of {missing}; "
        "`make api-server-programs` builds what is missing (Go; about 10 minutes)"
    )
    for item in chosen:
        item.add_marker(pytest.mark.skip(reason=f"{missing} missing"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name in one line the tests that were left out."""
    text = terminalreporter.config.stash.get(LEFT_OUT, "")
    if text:
        terminalreporter.write_line(text, yellow=True)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real kube-apiserver with etcd, without a node and controllers."""
    from harness import api_server

    with api_server.running(tmp_path_factory.mktemp("api-server")) as server:
        yield server


# --- the real cluster ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[LocalCluster]:
    """The running one-node Kubernetes. One that ran before the tests goes on running after them."""
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
    """The cluster with the operator installed; the training-operator comes with ``real_world``.

    Kueue and Trainer v2, which an earlier run of the tests has left, are removed.
    """
    from support.real_world import RealWorld

    local_cluster.remove_kueue()
    local_cluster.remove_trainer()
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
    """Collect logs and objects after a failure on the real cluster, and print their folder."""
    report = yield
    if report.failed and "harness.cluster" in sys.modules:
        from harness import lifecycle
        from harness.cluster import LocalCluster
        from harness.paths import cache

        if lifecycle.is_running():
            name = re.sub(r"\W+", "-", item.nodeid).strip("-")
            folder = LocalCluster().collect(cache() / "failures" / name)
            report.sections.append(("cluster", f"logs, objects and events are in {folder}"))
    return report
