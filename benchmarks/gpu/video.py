"""Seconds per video: the sampler's steps on the whole network, and decoding, against what the products alone take."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.gpu.device import forget_peak, name_of, peak_gib, synchronise
from benchmarks.gpu.network import FPS, SEED, build, compile_choice
from benchmarks.gpu.rates import PRODUCT_RATE
from benchmarks.gpu.tokenizer import decode_figure
from benchmarks.gpu.worker import Job
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.flops import peak_rate, sample_flops
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.training import AccelerationConfig, ParallelConfig
from cosmos_worker.diffusion.samplers import OnStep
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample.sampler import Settings, sample_latents
from cosmos_worker.train.step import use_bfloat16

STEPS, PASSES = 35, 2
"""Sampler steps of a video, and passes of each with guidance."""


def measure(job: Job, window: str, compiled: bool) -> None:
    """One row: a video of a window by 35 steps with guidance."""
    whole = job.sizes.windows[window]
    experiment = whole.model_copy(update={"ema": job.sizes.stack(window).ema})
    model = build(_for_sampling(experiment, compiled), job.device)
    if use_bfloat16(experiment.diffusion, job.device):
        model.net.blocks.to(torch.bfloat16)
    forget_peak(job.device)
    num_steps = job.sizes.sampler_steps[window]
    per_step = _median_step(model.net.eval(), experiment, job.device, num_steps)
    flops = sample_flops(experiment)
    rate, peak = job.figures.get(PRODUCT_RATE), peak_rate(name_of(job.device))
    network = STEPS * per_step
    floor = STEPS * PASSES * flops / rate if rate else None
    decoding = job.figures.get(decode_figure(window))
    job.row(
        window=window,
        compiled=compiled,
        **{
            "steps measured": num_steps,
            "s per step of two passes": per_step,
            "MFU": PASSES * flops / per_step / peak if peak else None,
            f"s for {STEPS} steps": network,
            "floor s": floor,
            "of the floor": network / floor if floor else None,
            "decoding s": decoding,
            "s per video": network + decoding if decoding is not None else None,
            "peak GiB": peak_gib(job.device),
        },
    )
    job.note(
        f"floor: {STEPS * PASSES} passes at the fastest rate of bfloat16 products that this run has measured"
    )
    job.note(
        "a step is the median of those after the first; blocks are in bfloat16, one video at a time; decoding is that "
        "of the table of the tokenizer, if it was measured before"
    )


def _for_sampling(experiment: Experiment, compiled: bool) -> Experiment:
    kernels = AccelerationConfig(compile=compile_choice(compiled))
    return experiment.model_copy(update={"parallel": ParallelConfig(), "acceleration": kernels})


def _median_step(
    net: CosmosDiT, experiment: Experiment, device: torch.device, num_steps: int
) -> float:
    """Median seconds of a sampler step, after the first, which compiles and warms up."""
    times: list[float] = []

    def on_step() -> None:
        synchronise(device)
        times.append(time.perf_counter())

    sample_window(net, experiment, device, num_steps, on_step)
    return statistics.median(later - earlier for earlier, later in pairwise(times))


def sample_window(
    net: CosmosDiT,
    experiment: Experiment,
    device: torch.device,
    num_steps: int,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents of one video of random text, with guidance.

    Raises:
        FloatingPointError: they are not finite.
    """
    video, diffusion = experiment.video, experiment.diffusion
    generator = torch.Generator().manual_seed(SEED)
    frames = experiment.latent_frames(video)
    shape = (1, experiment.net.latent_channels, frames, video.height // 8, video.width // 8)
    known = torch.randn(shape, generator=generator) * diffusion.sigma_data
    length, width = experiment.text.max_length, experiment.net.text_channels
    text, negative = (
        torch.randn(1, length, width, generator=generator).to(device) for _ in range(PASSES)
    )
    sampling = SamplingConfig(
        num_steps=num_steps,
        num_pixel_frames=video.num_pixel_frames,
        height=video.height,
        width=video.width,
        fps=FPS,
    )
    settings = Settings(
        sampling,
        frames,
        experiment.text,
        diffusion.sigma_data,
        None,
        torch.bfloat16 if use_bfloat16(diffusion, device) else torch.float32,
    )
    latents = sample_latents(net, ["0"], known.to(device), text, negative, settings, on_step)
    if not bool(latents.isfinite().all()):
        raise FloatingPointError("the sampler's latents are not finite")
    return latents
