"""Encode and decode of the tokenizer's network, with random weights: time, and memory beside the plan's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.device import forget_peak, median_seconds, peak_gib
from benchmarks.gpu.worker import Job
from cosmos_worker.config.values import GIB
from cosmos_worker.memory.activations import decoder_bytes
from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder

WINDOWS_AT_ONCE = (1, 8)
"""Windows that cache-latents encodes at once, where they are short."""


def decode_figure(window: str) -> str:
    """Name of the figure of how long a window is decoded, in seconds."""
    return f"seconds to decode a {window} window"


def measure(job: Job, window: str) -> None:
    """Rows of a window: encode, with one and with several at once, and decode."""
    experiment, device = job.sizes.windows[window], job.device
    video = experiment.video
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = AutoencoderConfig(channels=job.sizes.tokenizer_channels)
    with torch.device(device):
        network = CausalVideoAutoencoder(config).to(dtype).eval()
    counts = [1] if experiment.tokenizer.batch_size == 1 else WINDOWS_AT_ONCE
    frames, rows, columns = experiment.latent_frames(video), video.height // 8, video.width // 8
    for count in counts:
        shape = (count, 3, video.num_pixel_frames, video.height, video.width)
        pixels = torch.rand(shape, device=device, dtype=dtype) * 2 - 1
        _row(job, window, "encode", count, lambda pixels=pixels: network.encode(pixels))
        del pixels
    shape = (1, config.latent_channels, frames, rows, columns)
    latents = torch.randn(shape, device=device, dtype=dtype)
    planned = decoder_bytes(frames, rows, columns, dtype.itemsize) / GIB
    seconds = _row(job, window, "decode", 1, lambda: network.decode(latents), planned)
    job.figure(decode_figure(window), seconds)
    job.note(
        "planned: what cosmos-worker plan counts for the decoder's tensors, without weights and the frames in float32"
    )


def _row(
    job: Job,
    window: str,
    what: str,
    count: int,
    run: Callable[[], Tensor],
    planned_gib: float | None = None,
) -> float:
    """Measure and tell; returns the seconds."""
    forget_peak(job.device)
    with torch.no_grad():
        seconds = median_seconds(run, job.device, job.sizes.least_s)
    frames = count * job.sizes.windows[window].video.num_pixel_frames
    job.row(
        window=window,
        what=what,
        windows=count,
        seconds=seconds,
        **{
            "frames/s": frames / seconds,
            "peak GiB": peak_gib(job.device),
            "planned GiB": planned_gib,
        },
    )
    return seconds
