"""The training step of a stack of blocks of the true width: time, utilisation, and memory beside the plan's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.gpu import kernels
from benchmarks.gpu.device import (
    forget_peak,
    median_seconds,
    name_of,
    peak_gib,
    reserved_gib,
)
from benchmarks.gpu.network import Variant, build, random_batch
from benchmarks.gpu.worker import Job
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.flops import TRAINING_FACTOR, peak_rate, sample_flops
from cosmos_worker.config.values import GIB
from cosmos_worker.memory.plan import MemoryPlan, Setup, plan_memory
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.step import batch_loss, train_step


def measure(job: Job, window: str, options: Mapping[str, Any]) -> None:
    """One row: the step of a window with the options of :class:`Variant`, by name."""
    variant = Variant(**options)
    experiment = variant.apply(job.sizes.stack(window))
    whole = variant.apply(job.sizes.windows[window])
    with kernels.chosen(variant.attention, job.device) as attend:
        forget_peak(job.device)
        passes, step = _measure(job, variant, experiment, attend)
    flops = variant.samples * TRAINING_FACTOR * sample_flops(experiment)
    peak = peak_rate(name_of(job.device))
    scale = sample_flops(whole) / sample_flops(experiment)
    planned = plan_one_gpu(experiment, job.device)
    job.row(
        window=window,
        blocks=f"{experiment.net.num_blocks} of {whole.net.num_blocks}",
        compiled=variant.compiled,
        attention=variant.attention,
        checkpointing=variant.checkpointing,
        samples=variant.samples,
        linear=variant.linear,
        **{
            "forward and backward ms": passes * 1e3,
            "MFU": flops / passes / peak if peak else None,
            "ms with all blocks": passes * scale * 1e3,
            "step ms": step * 1e3,
            "MFU of the step": flops / step / peak if peak else None,
            "peak GiB": peak_gib(job.device),
            "planned GiB": (planned.total - planned.headroom) / GIB,
            "reserved GiB": reserved_gib(job.device),
        },
    )
    job.note(
        "MFU: operations of forward and backward without what is computed again, of the device's peak in bfloat16 "
        "also where products are in float8"
    )
    job.note(
        "ms with all blocks: forward and backward, times the operations of all blocks by those measured"
    )
    job.note("step: with clipping and AdamW of 32 bits, for all weights of the stack on this GPU")
    job.note(
        "planned: the sum of cosmos-worker plan without its headroom; reserved: by PyTorch's allocator"
    )


def _measure(
    job: Job, variant: Variant, experiment: Experiment, attend: kernels.Attend
) -> tuple[float, float]:
    """Median seconds of forward and backward, and of the whole step."""
    device, least = job.device, job.sizes.least_s
    model = build(experiment, device)
    if variant.attention == kernels.FLASH3:
        kernels.use(model, attend)
    batch, noise = random_batch(experiment, variant.samples)

    def passes() -> None:
        model.zero_grad(set_to_none=True)
        batch_loss(model, batch, noise, experiment.diffusion, device).total.backward()

    first = median_seconds(passes, device, least)
    optimizer = build_optimizer(model, experiment.optimizer)

    def step() -> None:
        train_step(
            model,
            optimizer,
            [(batch, noise)],
            experiment,
            device,
            lambda: "the benchmark's step",
            checks_later=True,
        )

    model.zero_grad(set_to_none=True)
    return first, median_seconds(step, device, least)


def plan_one_gpu(experiment: Experiment, device: torch.device) -> MemoryPlan:
    """The memory that ``cosmos-worker plan`` computes for one GPU."""
    total = 80 * GIB
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    return plan_memory(
        Setup(
            experiment,
            num_gpus=1,
            gpus_per_node=1,
            gpu_memory=total,
            activation_checkpointing=experiment.parallel.activation_checkpointing,
        )
    )
