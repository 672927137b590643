"""Each kernel of attention alone, at the sizes of the network, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import median_seconds, name_of
from benchmarks.gpu.kernels import chosen, names
from benchmarks.gpu.worker import Job, NotHere
from cosmos_worker.config.flops import peak_rate
from cosmos_worker.memory.sizes import tokens_per_sample

MATH_LIMIT = 16_000
"""Tokens above which the kernel that keeps the whole matrix is not tried: it takes tens of GiB."""


def measure(job: Job, window: str) -> None:
    """Self-attention and attention to the text of one sample, with every kernel that there is."""
    experiment = job.sizes.windows[window]
    tokens = tokens_per_sample(experiment)
    for kind, others in (("self", tokens), ("text", experiment.text.max_length)):
        for name in names():
            if name == "math" and tokens > MATH_LIMIT:
                job.note(f"math is not tried with {tokens} tokens: it keeps the whole matrix")
                continue
            try:
                cells = _measure_one(job, window, name, others)
            except NotHere as absence:
                cells = {"not measured": str(absence)}
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0][:120]
                cells = {"not measured": f"{type(error).__name__}: {reason}"}
            job.row(
                window=window, attention=kind, tokens=f"{tokens} to {others}", kernel=name, **cells
            )


def _measure_one(job: Job, window: str, name: str, others: int) -> dict[str, Any]:
    """Milliseconds and rates of one kernel."""
    experiment, device = job.sizes.windows[window], job.device
    net, tokens = experiment.net, tokens_per_sample(experiment)

    def draw(length: int) -> Tensor:
        shape = (1, net.num_heads, length, net.head_dim)
        return torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)

    q, k, v = draw(tokens), draw(others), draw(others)
    toward = torch.randn_like(q)
    least = job.sizes.least_s / 10
    with chosen(name, device) as attend:
        with torch.no_grad():
            forward = median_seconds(lambda: attend(q, k, v), device, least)
        both = median_seconds(
            lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), toward), device, least
        )
    flops, peak = 4 * tokens * others * net.model_channels, peak_rate(name_of(device))
    rate = 3 * flops / both
    return {
        "forward ms": forward * 1e3,
        "forward and backward ms": both * 1e3,
        "TFLOP/s": rate / 1e12,
        "of the peak": rate / peak if peak else None,
    }
