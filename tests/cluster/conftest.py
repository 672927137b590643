"""The order of the tests on the real cluster: the quickstart trains beside most of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real_world import EXAMPLE, RealWorld

FIRST = "test_cluster_without_the_training_operator"
"""First of all, because it removes the training-operator, if it is there, and with it every PyTorchJob."""
BEGINNING = "test_get_shows_that_it_trains"
"""Second: the test that starts the quickstart."""
TURNS = {
    "test_node_resources": 2,
    "test_failures": 3,
    "test_chart": 4,
    "test_quickstart": 6,
    "test_other_operators": 7,
}
"""Position of each file; one that is not named here is fifth. Tests that add nodes, lose them and stop the operator run
while the quickstart trains, which survives all of it. Kueue is installed when it has ended: until its webhooks answer,
no Job can be made."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the quickstart early and look at its results when the tests beside it, which mostly wait, are done."""
    if config.getoption("--real-cluster"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    name = item.name.partition("[")[0]
    if name in (FIRST, BEGINNING):
        return (FIRST, BEGINNING).index(name)
    return TURNS.get(item.path.stem, 5)


@pytest.fixture(scope="session")
def quickstart(real_world: RealWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """README's job, begun by the first test that needs it; it goes on beside the other tests and stays after its end.

    The file has what ``kubectl get ptj --watch`` has printed since before the job was there.
    """
    printed = tmp_path_factory.mktemp("watch") / "output.txt"
    command = real_world.command("get", "ptj", "--watch")
    with printed.open("w") as stream:
        watch = subprocess.Popen(command, stdout=stream, env=real_world.environment)
    try:
        real_world.kubectl("apply", "--filename", str(EXAMPLE))
        yield printed
    finally:
        watch.terminate()
        watch.wait()
