"""Rates of the device that bound everything else: of matrix products, and of its memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.device import median_seconds, name_of
from benchmarks.gpu.worker import Job
from cosmos_worker.config.flops import peak_rate
from cosmos_worker.memory.sizes import tokens_per_sample

PRODUCTS_AT_ONCE = 10
"""Products between two waits, so that starting them does not count."""
PRODUCT_RATE = "bfloat16 products per second"
"""Name of the figure that floors are computed with."""


def measure(job: Job) -> None:
    """Products in bfloat16 and float8 of a large square and of the MLP's shapes; copies of memory."""
    short = next(iter(job.sizes.windows.values()))
    D, side = short.net.model_channels, job.sizes.square
    tokens, hidden = tokens_per_sample(short), int(D * short.net.mlp_ratio)
    peak = peak_rate(name_of(job.device))
    rates = []
    for rows, inner, columns in ((side, side, side), (tokens, D, hidden), (tokens, D, D)):
        for name, product in (
            ("bfloat16", _bfloat16_product(rows, inner, columns, job.device)),
            ("float8", _float8_product(rows, inner, columns, job.device)),
        ):
            if product is None:
                continue
            rate = _rate(product, 2 * rows * inner * columns, job)
            if name == "bfloat16":
                rates.append(rate)
            job.row(
                what=f"{name}, {rows} x {inner} times {inner} x {columns}",
                **{
                    "TFLOP/s": rate / 1e12,
                    "of the peak in bfloat16": rate / peak if peak else None,
                },
            )
    job.figure(PRODUCT_RATE, max(rates))
    values = 64 * side * side // 16
    source = torch.ones(values, dtype=torch.float32, device=job.device)
    target = torch.empty_like(source)
    rate = _rate(lambda: target.copy_(source), 2 * source.nbytes, job)
    job.row(
        what=f"copy of {source.nbytes / 2**20:.0f} MiB, read and written", **{"GB/s": rate / 1e9}
    )


def _rate(work: Callable[[], object], amount: float, job: Job) -> float:
    """Amount of work per second."""

    def run() -> None:
        for _ in range(PRODUCTS_AT_ONCE):
            work()

    return amount * PRODUCTS_AT_ONCE / median_seconds(run, job.device, job.sizes.least_s / 10)


def _bfloat16_product(
    rows: int, inner: int, columns: int, device: torch.device
) -> Callable[[], Tensor]:
    left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
    right = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
    return lambda: left @ right.T


def _float8_product(
    rows: int, inner: int, columns: int, device: torch.device
) -> Callable[[], Tensor] | None:
    """None where the device has no such product, or a side is no multiple of 16."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return None
    left = torch.randn(rows, inner, device=device).to(torch.float8_e4m3fn)
    right = torch.randn(columns, inner, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones((), device=device)
    return lambda: torch._scaled_mm(
        left, right.T, scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True
    )
