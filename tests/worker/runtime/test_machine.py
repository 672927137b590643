"""Probes of the machine, on folders and packages made for the test."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from cosmos_worker.config.values import GIB
from cosmos_worker.runtime import machine
from cosmos_worker.runtime.machine import Finding

SECRET = "hf_secret_value"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, **modules: str) -> None:
    """Put a package with its metadata and modules on the path."""
    info = folder / f"{package.replace('-', '_')}-9.8.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.8\n")
    for name, code in modules.items():
        path = folder.joinpath(*name.split("__"))
        path.mkdir(parents=True)
        (path / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)


# --- driver, torch, CUDA -------------------------------------------------------------------------


def test_driver_is_told_by_its_version(tmp_path: Path) -> None:
    path = tmp_path / "version"
    path.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2\n"
    )

    assert machine.probe_driver(True, path) == Finding(True, "550.54.15")
    assert machine.probe_driver(True, tmp_path / "absent") == Finding(
        False, f"no {tmp_path / 'absent'}"
    )


def test_torch_is_found_without_its_import() -> None:
    assert machine.probe_torch(False) == Finding(True, torch.__version__.split("+")[0])


def use_devices(monkeypatch: pytest.MonkeyPatch, *memory: float) -> None:
    devices = [SimpleNamespace(name="H100", total_memory=int(size * GIB)) for size in memory]
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(devices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
    monkeypatch.setattr(torch.cuda, "get_device_properties", devices.__getitem__)


def test_cuda_devices_are_counted_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    use_devices(monkeypatch, 79.2, 79.2, 39.5)

    assert machine.probe_cuda(True) == Finding(True, "2 x H100, 79.2 GiB; 1 x H100, 39.5 GiB")


def test_machine_without_devices_says_for_which_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    use_devices(monkeypatch)

    assert machine.probe_cuda(True) == Finding(False, "no device for CUDA 12.8")


def test_torch_for_cpus_is_told_from_a_missing_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)

    assert "built without CUDA" in machine.probe_cuda(True).detail


@pytest.mark.parametrize("probe", [machine.probe_cuda, machine.probe_nccl])
def test_nothing_is_imported_that_nobody_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, probe: machine.Probe
) -> None:
    monkeypatch.setattr(machine, "DRIVER_FILE", tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "torch", None)

    assert probe(False) == Finding(False, "not looked for, as there is no driver")
    assert "torch cannot be imported" in probe(True).detail


def test_nccl_is_told_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 5))

    assert machine.probe_nccl(True) == Finding(True, "2.27.5")

    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    assert "built without NCCL" in machine.probe_nccl(True).detail


# --- packages ------------------------------------------------------------------------------------


def test_package_is_tried_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = "raise RuntimeError('Found empty\\n meta package')"
    install(monkeypatch, tmp_path, "transformer-engine", transformer_engine=broken)

    assert machine.probe_transformer_engine(False) == Finding(True, "9.8 (installed, not tried)")
    assert machine.probe_transformer_engine(True) == Finding(
        False, "9.8 cannot be imported: RuntimeError: Found empty meta package"
    )


def test_package_that_works_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(
        monkeypatch, tmp_path, "transformer-engine", transformer_engine="", transformer_engine__pytorch=""
    )  # fmt: skip

    assert machine.probe_transformer_engine(True) == Finding(True, "9.8")


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ("return True, ''", Finding(True, "9.8")),
        ("return False, 'Too old a GPU.'", Finding(False, "Too old a GPU")),
        ("raise RuntimeError('no\\ndevice')", Finding(False, "RuntimeError: no device")),
    ],
)
def test_float8_of_transformer_engine_is_what_the_library_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, finding: Finding
) -> None:
    module = f"def is_fp8_available(return_reason):\n    assert return_reason\n    {code}"
    install(
        monkeypatch,
        tmp_path,
        "transformer-engine",
        transformer_engine="",
        transformer_engine__pytorch=module,
    )
    monkeypatch.delitem(sys.modules, "transformer_engine.pytorch", raising=False)

    assert machine.probe_engine_float8(False) == Finding(True, "9.8 (installed, not tried)")
    assert machine.probe_engine_float8(True) == finding


def test_float8_of_transformer_engine_needs_a_release_that_has_ours() -> None:
    for version in ("2.15.1", "1.13", "version unknown"):
        lack = machine.lack_of_engine_float8(version, ModuleType("unused"))
        assert lack == f"transformer-engine {version} is not 2.16 or later"


def test_apex_of_another_project_is_not_apex(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert machine.probe_apex(True) == Finding(False, "not installed")

    install(monkeypatch, tmp_path, "apex", apex="", apex__optimizers="")
    assert machine.probe_apex(True).detail.startswith("apex 9.8 without CUDA extensions")
    assert not machine.probe_apex(False).found

    (tmp_path / "amp_C.py").write_text("")
    assert machine.probe_apex(True) == Finding(True, "9.8")


def test_video_libraries_are_found() -> None:
    assert machine.probe_pyav(True).found


# --- folders, memory, token ----------------------------------------------------------------------


def test_disk_is_measured_where_the_folder_would_be(tmp_path: Path) -> None:
    finding = machine.probe_disk(tmp_path / "a" / "b", 1)

    assert finding.found
    assert f"{tmp_path / 'a' / 'b'}: " in finding.detail
    assert not (tmp_path / "a").exists()


def test_disk_that_is_too_small_is_told_with_both_sizes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * GIB))

    assert machine.probe_disk(tmp_path, 4 * GIB) == Finding(
        False, f"{tmp_path}: 3.0 GiB free of 4.0 GiB needed"
    )
    assert machine.probe_disk(tmp_path, 3 * GIB).found


def test_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)

    assert f"not writable by uid {os.getuid()}" in machine.probe_disk(tmp_path, 0).detail
    assert not machine.probe_disk(tmp_path, 0).found


def test_shared_memory_of_a_container_engine_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=64 * 2**20))

    assert machine.probe_shared_memory(True) == Finding(
        False, "/dev/shm: 0.1 GiB, less than 1.0 GiB"
    )


@pytest.mark.parametrize("variable", machine.TOKEN_VARIABLES)
def test_token_is_told_by_its_place_never_by_its_value(variable: str) -> None:
    assert machine.probe_token({variable: SECRET}) == Finding(True, f"in {variable}")


def test_token_may_lie_in_a_file(tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path), "HF_TOKEN": ""}
    assert not machine.probe_token(environment).found

    (tmp_path / "token").write_text(SECRET)
    assert machine.probe_token(environment) == Finding(True, f"in {tmp_path / 'token'}")
