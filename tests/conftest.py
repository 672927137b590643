"""Options of the whole test suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from vectors import DEFAULT_FOLDER, vector_paths

SUFFIX = "_vector_path"


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
