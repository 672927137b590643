"""Video2World sampling: known frames and text in, latents and pixels out. Writes no file.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns, S text tokens,
D text width. Pixels are named as such.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    NetConfig,
    TextConfig,
    TokenizerConfig,
)
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.diffusion.edm import KnownFrames, scalings
from cosmos_worker.diffusion.samplers import (
    SOLVER_ORDERS,
    NetFn,
    OnStep,
    Solver,
    edm_euler_sigmas,
    guide,
    sample_edm_euler,
    sample_res,
)
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample.noise import draw_noise
from cosmos_worker.text.embeddings import pad_text
from cosmos_worker.tokenizer.tokenizer import (
    VideoTokenizer,
    pixels_from_video,
)

Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(c_in x, c_noise (B,), text, mask (B, 1, T, H, W), fps (B,)) → F, such as :class:`CosmosDiT`."""
RES_SOLVERS: dict[str, Solver] = {"res_2ab": "2ab", "res_2mid": "2mid", "res_1euler": "1euler"}


@dataclass(frozen=True)
class Sample:
    """What one video starts from: its id, its prompt's embedding (L, D), its known frames, its frames per second."""

    id: str
    text_LD: NDArray[np.float16]
    known_pixels_CTHW: Tensor
    fps: float | None = None
    """None = those of sampling."""


@dataclass(frozen=True)
class Settings:
    """What all videos of a run share.

    Attributes:
        sampling: steps, guidance, sizes.
        num_latent_frames: T, of sampling.num_pixel_frames in the tokenizer's chunks.
        text: length and padding of the text context.
        sigma_data: standard deviation of latents given to the network.
        negative_LD: embedding of the negative prompt; None exactly if guidance is 0.
        compute_dtype: of the network's matrix products; state and tokenizer stay float32.
        fps: frames per second of each video of the batch; empty = those of sampling.
    """

    sampling: SamplingConfig
    num_latent_frames: int
    text: TextConfig
    sigma_data: float
    negative_LD: NDArray[np.float16] | None
    compute_dtype: torch.dtype = torch.float32
    fps: tuple[float, ...] = ()


def num_known_latent_frames(num_input_frames: int) -> int:
    """Latent frames that known pixel frames fill: 1 for 1, 2 for 9."""
    return 1 + (num_input_frames - 1) // LATENT_SCALE


def check_admitted(net: NetConfig, tokenizer: TokenizerConfig, sampling: SamplingConfig) -> None:
    """Check the wanted video against what network and tokenizer admit.

    Raises:
        ConfigError: with every problem: name, value, limit.
    """
    problems = []
    for name, value in (("height", sampling.height), ("width", sampling.width)):
        largest = net.max_latent_size * LATENT_SCALE
        if value > largest:
            problems.append(
                f"sampling.{name}: {value} is more than the network admits; use at most {largest} "
                f"(net.max_latent_size {net.max_latent_size})"
            )
    frames, chunk = sampling.num_pixel_frames, tokenizer.chunk_pixel_frames
    most = 1 + (net.max_latent_frames - 1) * LATENT_SCALE
    if frames > most:
        problems.append(
            f"sampling.num_pixel_frames: {frames} is more than the network admits; use at most {most} "
            f"(net.max_latent_frames {net.max_latent_frames})"
        )
    if frames > chunk and frames % chunk:
        problems.append(
            f"sampling.num_pixel_frames: {frames} is more than one chunk of the tokenizer and no "
            f"multiple of it; use at most {chunk} (tokenizer.chunk_pixel_frames)"
        )
    if frames <= sampling.num_input_frames:
        problems.append(
            f"sampling.num_pixel_frames: {frames} leaves no frame to generate after "
            f"num_input_frames {sampling.num_input_frames}; use more frames"
        )
    order = SOLVER_ORDERS.get(RES_SOLVERS.get(sampling.sampler, "2ab"), 1)
    if sampling.num_steps < order:
        problems.append(
            f"sampling.num_steps: {sampling.num_steps} is no step of {sampling.sampler}; use {order} or more"
        )
    if sampling.sigma_min >= sampling.sigma_max:
        problems.append(
            f"sampling.sigma_min: {sampling.sigma_min} is not below sigma_max {sampling.sigma_max}"
        )
    if problems:
        raise ConfigError("; ".join(problems))


def num_sampler_steps(sampling: SamplingConfig) -> int:
    """How often `generate_latents` calls its on_step."""
    return sampling.num_steps // SOLVER_ORDERS.get(RES_SOLVERS.get(sampling.sampler, "2ab"), 1)


def split_batches(
    samples: Sequence[Any], lengths: Sequence[int], batch_size: int, padding: str
) -> list[list[Any]]:
    """Consecutive batches; with padding "trim" only prompts of one length share a batch."""
    batches: list[list[Any]] = []
    previous: int | None = None
    for sample, length in zip(samples, lengths, strict=True):
        fits = bool(batches) and len(batches[-1]) < batch_size
        if fits and (padding == "pad" or length == previous):
            batches[-1].append(sample)
        else:
            batches.append([sample])
        previous = length
    return batches


def encode_known_frames(
    tokenizer: VideoTokenizer, samples: Sequence[Sample], settings: Settings
) -> Tensor:
    """Latents of the known frames followed by zeros, times sigma_data, (B, C, T, H, W) float32.

    The encoder is causal, so the known latents do not depend on what follows. Differs: the reference fills the
    pixels with mid grey up to the whole length and encodes all of it, for the same known latents.
    """
    pixels = torch.stack([sample.known_pixels_CTHW for sample in samples])
    known = tokenizer.encode(pixels).float() * settings.sigma_data
    latent = known.new_zeros(*known.shape[:2], settings.num_latent_frames, *known.shape[3:])
    latent[:, :, : known.shape[2]] = known
    return latent


def _bind_network(
    net: Network, mask_B1THW: Tensor, fps_B: Tensor, text_BSD: Tensor, dtype: torch.dtype
) -> NetFn:
    device_type = text_BSD.device.type

    def net_fn(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            return net(x_BCTHW, c_noise_B, text_BSD, mask_B1THW, fps_B).float()

    return net_fn


def _denoiser(net_fn: NetFn, known: KnownFrames, sigma_data: float) -> NetFn:
    """x0 from (x, sigma), known frames inserted before and replaced after."""

    def x0_fn(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        x_in = known.insert(x_BCTHW, sigma_B[0], sigma_data)
        scale = scalings(sigma_B[:1], sigma_data)
        net_output = net_fn(x_in * scale.c_in, scale.c_noise.expand(len(x_in)))
        x0 = scale.c_skip * x_in + scale.c_out * net_output
        held = known.indicator(sigma_B[0])
        return held * known.latent_BCTHW + (1 - held) * x0

    return x0_fn


def generate_latents(
    net: CosmosDiT,
    tokenizer: VideoTokenizer,
    samples: Sequence[Sample],
    settings: Settings,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample the latents of a batch of videos from their known pixels; see `generate_from_known`."""
    latent = encode_known_frames(tokenizer, samples, settings)
    return generate_from_known(net, latent, samples, settings, on_step)


@torch.no_grad()
def generate_from_known(
    net: CosmosDiT,
    known_BCTHW: Tensor,
    samples: Sequence[Sample],
    settings: Settings,
    on_step: OnStep | None = None,
    pass_number: int = 0,
) -> Tensor:
    """Sample the latents of a batch of videos.

    Args:
        net: network in eval mode; its device is where the state lives.
        known_BCTHW: of `encode_known_frames`.
        samples: one per video; each sample's noise depends on (seed, id, pass) alone.
        settings: shared by all.
        on_step: called `num_sampler_steps` times.
        pass_number: which pass over the video this is, 0 for the first.

    Returns:
        Latents times sigma_data, float32 (B, C, T, H, W).

    Raises:
        DataError: the sampler's result is not finite.
    """
    sampling, device = settings.sampling, next(net.parameters()).device
    latent = known_BCTHW.to(device)

    def pad(embeddings: Sequence[NDArray[np.float16]]) -> Tensor:
        return pad_text(embeddings, settings.text.max_length, settings.text.padding).to(device)

    text = pad([sample.text_LD for sample in samples])
    negative = settings.negative_LD
    negatives = None if negative is None else pad([negative] * len(samples))
    fps = tuple(sampling.fps if sample.fps is None else sample.fps for sample in samples)
    settings = replace(settings, fps=fps)
    names = [sample.id for sample in samples]
    result = sample_latents(net, names, latent, text, negatives, settings, on_step, pass_number)
    if not bool(result.isfinite().all()):
        raise DataError(
            f"generate: latents of {', '.join(names)} are not finite after {sampling.num_steps} steps; "
            "check the checkpoint or lower sampling.guidance"
        )
    return result


@torch.no_grad()
def sample_latents(
    net: Network,
    names: Sequence[str],
    known_BCTHW: Tensor,
    text_BSD: Tensor,
    negative_BSD: Tensor | None,
    settings: Settings,
    on_step: OnStep | None = None,
    pass_number: int = 0,
) -> Tensor:
    """Sample latents whose first frames are known.

    Args:
        net: the network.
        names: B names; each sample's noise depends on (seed, name, pass) alone.
        known_BCTHW: latents times sigma_data, on the network's device; frames after the known ones are ignored.
        text_BSD: contexts.
        negative_BSD: contexts of the second pass; None = none.
        settings: sampling, sigma_data, compute_dtype and fps are used.
        on_step: called `num_sampler_steps` times.
        pass_number: which pass over the video this is, 0 for the first.

    Returns:
        Latents times sigma_data, float32 (B, C, T, H, W); not checked.
    """
    sampling, device = settings.sampling, known_BCTHW.device
    shape = tuple(known_BCTHW.shape[1:])
    initial, augment = draw_noise(sampling.seed, names, shape, device, pass_number)
    known = KnownFrames(known_BCTHW, num_known_latent_frames(sampling.num_input_frames), augment)

    fps_B = torch.tensor(settings.fps or [sampling.fps] * len(names), device=device)

    def bind(text: Tensor) -> NetFn:
        return _bind_network(net, known.mask_B1THW, fps_B, text, settings.compute_dtype)

    cond = bind(text_BSD)
    uncond = cond if negative_BSD is None else bind(negative_BSD)
    guidance = 0.0 if negative_BSD is None else sampling.guidance
    return _run_sampler(cond, uncond, guidance, initial, known, settings, on_step)


def _run_sampler(
    cond: NetFn,
    uncond: NetFn,
    guidance: float,
    noise_BCTHW: Tensor,
    known: KnownFrames,
    settings: Settings,
    on_step: OnStep | None,
) -> Tensor:
    sampling, sigma_data = settings.sampling, settings.sigma_data
    if sampling.sampler == "edm_euler":
        sigmas = edm_euler_sigmas(sampling.num_steps, sampling.sigma_min, sampling.sigma_max)
        net_fn = guide(cond, uncond, guidance)
        return sample_edm_euler(
            net_fn, noise_BCTHW, known, sigmas, sigma_data, sampling.known_frames, on_step
        )
    x0_fn = guide(
        _denoiser(cond, known, sigma_data), _denoiser(uncond, known, sigma_data), guidance
    )
    return sample_res(
        x0_fn,
        noise_BCTHW * sampling.sigma_max,
        sampling.num_steps,
        sampling.sigma_min,
        sampling.sigma_max,
        solver=RES_SOLVERS[sampling.sampler],
        on_step=on_step,
    )


@torch.no_grad()
def decode_latents(
    tokenizer: VideoTokenizer, latent_BCTHW: Tensor, sigma_data: float
) -> NDArray[np.uint8]:
    """Latents times sigma_data to uint8 frames (B, T, H, W, 3) in pixels."""
    frames: NDArray[np.uint8] = (
        pixels_from_video(tokenizer.decode(latent_BCTHW / sigma_data)).cpu().numpy()
    )
    return frames
