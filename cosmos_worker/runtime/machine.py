"""What this machine has: one probe per item, each a function that returns what it found.

Heavy packages are imported inside the probes that need them, and only when ``is_needed`` says that somebody asked.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from cosmos_worker.config.values import (
    GIB,
    gib,
)

DRIVER_FILE = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is the folder that is looked at
MIN_SHARED_MEMORY = GIB
"""What NCCL and loader processes want; container engines give 64 MiB unless told otherwise."""
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ENGINE_FLOAT8_RELEASE = (2, 16)
"""First release of Transformer Engine whose layers do not hold sharded weights a second time between the passes.

Scales without a state (Float8CurrentScaling) are there since 2.2, ``autocast(recipe=)`` since 2.9.
"""


@dataclass(frozen=True)
class Finding:
    """Whether an item can be used, and what is known of it."""

    found: bool
    detail: str


Probe = Callable[[bool], Finding]


def version_of(package: str) -> str | None:
    """Installed version by package metadata; None if it is not installed. Imports nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]


def probe_driver(is_needed: bool, path: Path = DRIVER_FILE) -> Finding:
    """The NVIDIA kernel driver."""
    try:
        words = path.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError):
        return Finding(False, f"no {path}")
    versions = [word for word in words if word[0].isdigit() and "." in word]
    return Finding(True, versions[0] if versions else " ".join(words))


def probe_torch(is_needed: bool) -> Finding:
    """PyTorch."""
    version = version_of("torch")
    return Finding(version is not None, version or "not installed")


def _why_not_asked(is_needed: bool) -> Finding | None:
    """What is found where PyTorch cannot be asked about the GPUs, or nobody wants to know; None where it is asked."""
    if not is_needed and not DRIVER_FILE.exists():
        return Finding(False, "not looked for, as there is no driver")
    try:
        import torch.distributed  # noqa: F401 - what follows asks it
    except Exception as error:  # a broken build raises OSError
        return Finding(False, f"torch cannot be imported: {_one_line(error)}")
    return None


def probe_cuda(is_needed: bool) -> Finding:
    """CUDA devices that PyTorch can use, with their memory."""
    if unknown := _why_not_asked(is_needed):
        return unknown
    import torch

    if torch.version.cuda is None:
        return Finding(False, f"torch {torch.__version__} is built without CUDA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old; it shows as no device
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        return Finding(False, f"no device for CUDA {torch.version.cuda}")
    devices = (torch.cuda.get_device_properties(index) for index in range(count))
    kinds = Counter(f"{device.name}, {gib(device.total_memory)}" for device in devices)
    return Finding(True, "; ".join(f"{number} x {kind}" for kind, number in kinds.items()))


def probe_nccl(is_needed: bool) -> Finding:
    """NCCL as PyTorch has it."""
    if unknown := _why_not_asked(is_needed):
        return unknown
    import torch
    import torch.distributed

    if not torch.distributed.is_nccl_available():
        return Finding(False, f"torch {torch.__version__} is built without NCCL")
    version = torch.cuda.nccl.version()
    return Finding(True, ".".join(map(str, version)))


def probe_transformer_engine(is_needed: bool) -> Finding:
    """Transformer Engine: installed, and if somebody needs it, importable with its PyTorch part."""
    return _probe_import("transformer-engine", "transformer_engine.pytorch", is_needed)


def probe_engine_float8(is_needed: bool) -> Finding:
    """Transformer Engine's float8 layers: a release that has ours, and a GPU for them if somebody needs it."""
    finding = probe_transformer_engine(is_needed)
    if not (finding.found and is_needed):
        return finding
    try:
        engine = importlib.import_module("transformer_engine.pytorch")
        lack = lack_of_engine_float8(finding.detail, engine)
    except Exception as error:  # without a device CUDA raises errors of several kinds
        lack = _one_line(error)
    return finding if lack is None else Finding(False, lack)


def lack_of_engine_float8(version: str, engine: ModuleType) -> str | None:
    """Why the installed Transformer Engine cannot multiply in float8 here; None = it can.

    Args:
        version: of the library.
        engine: its part for PyTorch.
    """
    wanted = ".".join(map(str, ENGINE_FLOAT8_RELEASE))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < ENGINE_FLOAT8_RELEASE:
        return f"transformer-engine {version} is not {wanted} or later"
    is_available, reason = engine.is_fp8_available(return_reason=True)
    return None if is_available else str(reason).rstrip(".")


def probe_apex(is_needed: bool) -> Finding:
    """NVIDIA apex with its CUDA extensions; the package of that name in registries is another one."""
    version = version_of("apex")
    if importlib.util.find_spec("amp_C") is None:
        return Finding(
            False,
            f"apex {version} without CUDA extensions (amp_C), or another package of that name"
            if version
            else "not installed",
        )
    return _probe_import("apex", "apex.optimizers", is_needed)


def probe_torchao(is_needed: bool) -> Finding:
    """torchao, for 8-bit moments and float8."""
    return _probe_import("torchao", "torchao", is_needed)


def probe_pyav(is_needed: bool) -> Finding:
    """PyAV, which reads and writes videos."""
    return _probe_import("av", "av", is_needed)


def _probe_import(package: str, module: str, is_needed: bool) -> Finding:
    version = version_of(package)
    if version is None and importlib.util.find_spec(module.split(".")[0]) is None:
        return Finding(False, "not installed")
    shown = version or "version unknown"
    if not is_needed:
        return Finding(True, f"{shown} (installed, not tried)")
    try:
        importlib.import_module(module)
    except Exception as error:  # missing libraries of CUDA raise RuntimeError and OSError
        return Finding(False, f"{shown} cannot be imported: {_one_line(error)}")
    return Finding(True, shown)


def probe_shared_memory(is_needed: bool, path: Path = SHARED_MEMORY) -> Finding:
    """Size of /dev/shm, through which processes of a node exchange data."""
    try:
        size = shutil.disk_usage(path).total
    except OSError:
        return Finding(False, f"no {path}")
    is_enough = size >= MIN_SHARED_MEMORY
    wanted = "" if is_enough else f", less than {gib(MIN_SHARED_MEMORY)}"
    return Finding(is_enough, f"{path}: {gib(size)}{wanted}")


def probe_token(environment: Mapping[str, str]) -> Finding:
    """Whether there is a Hugging Face token, never what it is."""
    names = [name for name in TOKEN_VARIABLES if environment.get(name)]
    if names:
        return Finding(True, f"in {names[0]}")
    home = Path(environment.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    path = Path(environment.get("HF_TOKEN_PATH") or home / "token").expanduser()
    if path.is_file() and path.stat().st_size:
        return Finding(True, f"in {path}")
    return Finding(False, f"neither {' nor '.join(TOKEN_VARIABLES)} nor {path}")


def probe_disk(folder: Path, required: int) -> Finding:
    """Free space and the right to write, where the folder is or would be made.

    Args:
        folder: need not exist.
        required: bytes that must be free; 0 = any.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{folder}: {gib(free)} free" + (f" of {gib(required)} needed" if required else "")
    if not os.access(existing, os.W_OK):
        return Finding(False, f"{detail}; not writable by uid {os.getuid()}")
    return Finding(free >= required, detail)
