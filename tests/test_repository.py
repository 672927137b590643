"""Rules of the repository that no linter checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "README.md",
    "benchmarks",
    "charts",
    "cosmos_worker",
    "docker",
    "docs",
    "examples",
    "operator",
    "pyproject.toml",
    "tests",
}


def tracked_files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listing.stdout.splitlines()


def test_top_level_holds_nothing_else() -> None:
    assert {name.split("/")[0] for name in tracked_files()} <= TOP_LEVEL


def test_tracked_files_can_travel_to_a_machine_with_a_gpu() -> None:
    """64 MiB of files may go there, the wheels of ``make gpu-wheels`` (6 MiB) and local changes among them."""
    sizes = {name: (ROOT / name).lstat().st_size for name in tracked_files()}

    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < 56 * 2**20, f"the largest files are {largest}"


def test_operator_folder_is_not_a_package() -> None:
    """A package called operator would hide the standard library's."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not list((ROOT / "operator").glob("*.py"))


@pytest.mark.parametrize(
    ("tests", "package"),
    [("tests/worker", "cosmos_worker"), ("tests/operator", "operator/cosmos_operator")],
)
def test_folders_of_tests_are_folders_of_the_package(tests: str, package: str) -> None:
    folders = {str(Path(name).parent) for name in tracked_files() if name.startswith(f"{tests}/")}

    assert folders, tests
    for folder in folders:
        assert (ROOT / package / Path(folder).relative_to(tests) / "__init__.py").is_file(), folder


def test_files_below_the_folders_of_tests_are_tests() -> None:
    """Programs that tests start and what several tests use are in tests/support."""
    for name in tracked_files():
        if name.startswith(("tests/worker/", "tests/operator/")):
            file = Path(name).name
            assert file == "conftest.py" or file.startswith("test_"), name


def test_support_is_imported_as_a_package() -> None:
    """A module that is imported by two names is two modules, with two of each of its classes."""
    folder = ROOT / "tests" / "support"
    modules = {path.stem for path in folder.iterdir() if not path.name.startswith("__")}
    for name in tracked_files():
        if not name.startswith("tests/") or not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}:{node.lineno}: import by a relative name"
                imported = {node.module or ""}
            else:
                continue
            for module in imported:
                first = module.split(".")[0]
                assert first not in modules, f"{name}:{node.lineno}: import support.{first}"
                assert not module.startswith("tests."), f"{name}:{node.lineno}: import {module[6:]}"


@pytest.mark.parametrize("command", ["cosmos_operator.cli", "cosmos_worker.cli"])
def test_help_starts_without_torch(command: str) -> None:
    script = (
        f"import sys; sys.argv = ['x', '--help']\nfrom {command} import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem
)
def test_examples_are_valid_jobs(path: Path) -> None:
    kind = yaml.safe_load(path.read_text(encoding="utf-8"))["kind"]
    assert kind in ("PostTrainingJob", "InferenceJob")
    result = subprocess.run(
        [sys.executable, "-m", "cosmos_operator.cli", "validate", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_registry_addresses_are_committed() -> None:
    words = [
        "pypi" + ".org",
        "files.python" + "hosted",
        "proxy.golang" + ".org",
        "registry.npmjs" + ".org",
    ]
    for name in tracked_files():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".tpl", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in words if word in text], name


def test_version_is_the_same_everywhere() -> None:
    places = {
        "pyproject.toml": r'^version = "(.+)"',
        "cosmos_worker/__init__.py": r'^__version__ = "(.+)"',
        "charts/cosmos/Chart.yaml": r"^(?:version|appVersion): (.+)",
        "charts/cosmos/README.md": r"cosmos-worker:([\d.]+)",
        **{
            f"docker/{path.name}": r"^ARG VERSION=(.+)"
            for path in (ROOT / "docker").glob("*.Dockerfile")
        },
    }

    found = {
        name: re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        for name, pattern in places.items()
    }

    assert all(found.values()), found
    assert len({version for versions in found.values() for version in versions}) == 1, found
