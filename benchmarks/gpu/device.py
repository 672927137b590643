"""The device that is measured: its facts, its clock, its memory."""

from __future__ import annotations

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from benchmarks.gpu.worker import Job
from cosmos_worker.config.values import GIB

Result = TypeVar("Result")
LEAST_REPEATS = 3
MOST_REPEATS = 200
PACKAGES = ("torchao", "flash_attn_interface", "flash_attn", "transformer_engine", "triton")


def name_of(device: torch.device) -> str:
    """The name that the driver gives the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def tell_facts(job: Job) -> None:
    """Tell device, software and packages of this machine.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    device = job.device
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"PyTorch {torch.__version__} finds no CUDA device; `--tiny` runs all parts on the CPU, for trial"
        )
    found = {
        "device": name_of(device),
        "PyTorch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": ", ".join(name for name in PACKAGES if importlib.util.find_spec(name))
        or "none",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["memory"] = f"{properties.total_memory / GIB:.1f} GiB"
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
        free, total = torch.cuda.mem_get_info(device)
        found["in use by others"] = f"{(total - free) / GIB:.1f} GiB"
    for name, value in found.items():
        job.row(fact=name, value=value)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds of one call, until the device has done its work; and what it returns."""
    synchronise(device)
    began = time.perf_counter()
    result = run()
    synchronise(device)
    return time.perf_counter() - began, result


def median_seconds(run: Callable[[], object], device: torch.device, least_s: float) -> float:
    """Median seconds of a call, of as many as fit into a time; the first, which compiles and warms up, is left out."""
    run()
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or (sum(seconds) < least_s and len(seconds) < MOST_REPEATS):
        seconds.append(timed(run, device)[0])
    return statistics.median(seconds)


def forget_peak(device: torch.device) -> None:
    """Begin to measure :func:`peak_gib` anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """GiB in tensors at the peak since :func:`forget_peak`; None on a CPU, where nobody counts."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / GIB


def reserved_gib(device: torch.device) -> float | None:
    """GiB that PyTorch has taken from the GPU at the peak, so with what its allocator cannot use."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_reserved(device) / GIB
