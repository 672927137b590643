"""The layers that pyproject.toml declares are enforced, and no module imports one that imports it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"cosmos_operator": "operator", "cosmos_worker": "."}
"""Package → the folder that holds it."""

Contract = dict[str, Any]


def contracts() -> list[Contract]:
    """The contracts of import-linter, as pyproject.toml has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return list(settings["tool"]["importlinter"]["contracts"])


def module_file(root: Path, module: str) -> Path:
    """The file of a module, or the ``__init__.py`` of a package."""
    path = root / PACKAGES[module.split(".")[0]] / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def layers_of(contract: Contract) -> list[list[str]]:
    """The layers of a contract from the top: each is one module, or several that are independent of each other."""
    containers = [f"{container}." for container in contract.get("containers", [])] or [""]
    return [
        [f"{container}{name.strip()}" for name in layer.split("|")]
        for container in containers
        for layer in contract["layers"]
    ]


def violations(contract: Contract) -> Iterator[tuple[str, str]]:
    """Pairs (importer, imported) that a contract must forbid: for each layer and each forbidden module one."""
    if contract["type"] == "layers":
        layers = layers_of(contract)
        for upper, lower in pairwise(layers):
            yield from ((low, high) for low in lower for high in upper)
        for layer in layers:
            yield from pairwise(layer)
    else:
        sources, forbidden = contract["source_modules"], contract["forbidden_modules"]
        yield from ((sources[i % len(sources)], name) for i, name in enumerate(forbidden))
        yield from ((source, forbidden[0]) for source in sources)


def lint(root: Path) -> str:
    """Output of import-linter about the packages below a folder."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((f"{root}/operator", str(root)))},
        capture_output=True,
        text=True,
        check=False,
    )
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of both packages and their contracts."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package, folder in PACKAGES.items():
        shutil.copytree(ROOT / folder / package, tmp_path / folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_planted_violation_is_found(checkout: Path) -> None:
    planted = {pair for contract in contracts() for pair in violations(contract)}
    for importer, imported in planted:
        with module_file(checkout, importer).open("a") as file:
            file.write(f"\nimport {imported}\n")

    report = lint(checkout)

    assert f"{len(contracts())} broken" in report
    missed = [
        (importer, imported)
        for importer, imported in sorted(planted)
        if f"{importer} is not allowed to import {imported}" not in report
    ]
    assert missed == []


def test_the_packages_keep_all_contracts(checkout: Path) -> None:
    assert f"Contracts: {len(contracts())} kept, 0 broken." in lint(checkout)


def test_every_package_of_the_worker_and_the_operator_has_a_layer() -> None:
    declared = (layers_of(contract) for contract in contracts() if contract["type"] == "layers")
    layers = [name for layer in chain.from_iterable(declared) for name in layer]
    for package, folder in PACKAGES.items():
        rooms = {
            path.name
            for path in (ROOT / folder / package).iterdir()
            if (path / "__init__.py").exists()
        }
        assert rooms <= {name.split(".")[1] for name in layers if name.count(".") == 1}


FIND_CYCLE = """
import graphlib, grimp
graph = grimp.build_graph("cosmos_operator", "cosmos_worker", cache_dir=None)
imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
try:
    graphlib.TopologicalSorter(imports).prepare()
except graphlib.CycleError as error:
    print(*error.args[1])
"""
"""Prints the modules of a cycle of imports, if there is one; imports for type checkers count."""


def find_cycle(root: Path) -> str:
    """The modules of a cycle of the packages below a folder, separated by spaces; empty if there is none."""
    done = subprocess.run(
        [sys.executable, "-c", FIND_CYCLE],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((f"{root}/operator", str(root)))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_no_module_imports_one_that_imports_it() -> None:
    assert find_cycle(ROOT) == ""


def test_cycle_of_imports_for_type_checkers_is_found(checkout: Path) -> None:
    low, high = "cosmos_worker.errors", "cosmos_worker.config.captions"
    for importer, imported in ((low, high), (high, low)):
        with module_file(checkout, importer).open("a") as file:
            file.write(
                f"\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import {imported}\n"
            )

    assert set(find_cycle(checkout).split()) == {low, high}
