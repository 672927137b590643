"""Wheels that are carried to a machine without a package index."""

from __future__ import annotations

import importlib
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.wheels import CONSTRAINTS, PACKAGES, download_command, pinned, use_wheels


def test_wheels_are_imported_before_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried, unpacked = tmp_path / "carried", tmp_path / "unpacked"
    carried.mkdir()
    with zipfile.ZipFile(carried / "carried_one-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_one/__init__.py", "value = 7")
    monkeypatch.setattr(sys, "path", sys.path.copy())

    assert use_wheels(carried, unpacked) == ["carried_one-1-py3-none-any.whl"]

    importlib.invalidate_caches()
    assert importlib.import_module("carried_one").value == 7
    assert sys.path[0] == str(unpacked)


def test_without_wheels_nothing_changes(tmp_path: Path) -> None:
    before = sys.path.copy()

    assert use_wheels(tmp_path / "absent", tmp_path / "unpacked") == []
    assert sys.path == before


def test_versions_and_digests_are_those_of_the_constraints() -> None:
    requirements = pinned(CONSTRAINTS.read_text())

    lines = [line for line in requirements.splitlines() if not line.startswith(" ")]
    assert [line.split("==")[0] for line in lines] == list(PACKAGES)
    assert requirements.count("--hash=sha256:") >= len(PACKAGES)
    with pytest.raises(LookupError, match="has no pydantic; `make constraints`"):
        pinned("torch==1\n")


def test_download_is_for_the_other_machine(tmp_path: Path) -> None:
    command = download_command(tmp_path, tmp_path / "r.txt", "3.12", "aarch64")

    assert command[command.index("--python-version") + 1] == "3.12"
    assert "manylinux_2_28_aarch64" in command
    assert {"--require-hashes", "--no-deps"} <= set(command)
