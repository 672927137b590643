"""One pass of Video2World sampling: known frames and text in, latents and pixels out. Reads and writes no file.

Read from top to bottom: encode the known frames, sample the latents, decode them.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns, L tokens of one text, S text tokens
of the batch, D text width. Shapes in pixels are named as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.config.network import LATENT_SCALE, TextConfig, TextPadding
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.diffusion.edm import scalings
from cosmos_worker.diffusion.known_frames import KnownFrames, arch_invariant_noise
from cosmos_worker.diffusion.samplers import (
    SOLVER_ORDERS,
    NetFn,
    OnStep,
    Solver,
    edm_euler_sigmas,
    guide,
    guide_in_one_batch,
    sample_edm_euler,
    sample_res,
)
from cosmos_worker.errors import DataError
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.text.embeddings import pad_text
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer, pixels_from_video

Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(c_in x, c_noise (B,), text, mask (B, 1, T, H, W), fps (B,)) → F, such as :class:`CosmosDiT`."""
RES_SOLVERS: dict[str, Solver] = {"res_2ab": "2ab", "res_2mid": "2mid", "res_1euler": "1euler"}
"""Samplers of the RES family → their solvers; the other sampler is edm_euler."""
MAX_POSITIONS_IN_ONE_BATCH = 1 << 15
"""Latent pixels of a batch of videos up to which guidance is one evaluation: three videos of 57 frames of 256x320,
which are 7,680 tokens of the released networks. Beyond that each evaluation fills a GPU by itself."""


@dataclass(frozen=True)
class Sample:
    """The conditions of one video.

    Attributes:
        id: name of the video, which decides its noise.
        text_LD: embedding of its prompt.
        known_pixels_CTHW: its known frames in pixels, float32 in [-1, 1].
        fps: its frames per second; None = those of the run's sampling.
    """

    id: str
    text_LD: NDArray[np.float16]
    known_pixels_CTHW: Tensor
    fps: float | None = None


@dataclass(frozen=True)
class Settings:
    """The settings that all videos of a run share.

    Attributes:
        sampling: steps, guidance, sizes.
        num_latent_frames: T, of sampling.num_pixel_frames in the tokenizer's chunks.
        text: length of the text context.
        sigma_data: standard deviation of latents given to the network.
        negative_LD: embedding of the negative prompt; None exactly if guidance is 0.
        compute_dtype: of the network's matrix products; state and tokenizer stay float32.
        fps: frames per second of each video of the batch; empty = those of sampling.
        text_padding: how captions of different lengths become one context.
    """

    sampling: SamplingConfig
    num_latent_frames: int
    text: TextConfig
    sigma_data: float
    negative_LD: NDArray[np.float16] | None
    compute_dtype: torch.dtype = torch.float32
    fps: tuple[float, ...] = ()
    text_padding: TextPadding = "pad"


def num_known_latent_frames(num_input_frames: int) -> int:
    """Latent frames that known pixel frames fill: 1 for 1, 2 for 9."""
    return 1 + (num_input_frames - 1) // LATENT_SCALE


def evaluations_per_interval(sampling: SamplingConfig) -> int:
    """Evaluations of the denoiser between two noise levels: 2 for res_2mid, 1 for the other samplers."""
    solver = RES_SOLVERS.get(sampling.sampler)
    return 1 if solver is None else SOLVER_ORDERS[solver]


def num_sampler_steps(sampling: SamplingConfig) -> int:
    """Number of times that `generate_latents` calls its on_step."""
    return sampling.num_steps // evaluations_per_interval(sampling)


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


@torch.no_grad()
def generate_latents(
    net: CosmosDiT,
    known_BCTHW: Tensor,
    samples: Sequence[Sample],
    settings: Settings,
    on_step: OnStep | None = None,
    pass_number: int = 0,
) -> Tensor:
    """Sample the latents of a batch of videos and check that they are finite.

    Args:
        net: network in eval mode; the state lives on its device.
        known_BCTHW: of `encode_known_frames`.
        samples: one per video; each sample's noise depends on (seed, id, pass) alone.
        settings: shared by all.
        on_step: called `num_sampler_steps` times.
        pass_number: number of the pass over the video, 0 for the first.

    Returns:
        Latents times sigma_data, float32 (B, C, T, H, W).

    Raises:
        DataError: the sampler's result is not finite.
    """
    sampling, device = settings.sampling, next(net.parameters()).device

    def pad(embeddings: Sequence[NDArray[np.float16]]) -> Tensor:
        return pad_text(embeddings, settings.text.max_length, settings.text_padding).to(device)

    text = pad([sample.text_LD for sample in samples])
    negative = settings.negative_LD
    negatives = None if negative is None else pad([negative] * len(samples))
    fps = tuple(sampling.fps if sample.fps is None else sample.fps for sample in samples)
    settings = replace(settings, fps=fps)
    names, known = [sample.id for sample in samples], known_BCTHW.to(device)
    result = sample_latents(net, names, known, text, negatives, settings, on_step, pass_number)
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
    """Sample latents whose first frames are known, from noise, by the sampler of the settings.

    Args:
        net: the network.
        names: B names; each sample's noise depends on (seed, name, pass) alone.
        known_BCTHW: latents times sigma_data, on the network's device; frames after the known ones are ignored.
        text_BSD: text contexts.
        negative_BSD: text contexts that guidance moves away from; None = no guidance, one evaluation a step.
        settings: sampling, sigma_data, compute_dtype and fps are used.
        on_step: called `num_sampler_steps` times.
        pass_number: number of the pass over the video, 0 for the first.

    Returns:
        Latents times sigma_data, float32 (B, C, T, H, W); they may be infinite or NaN.
    """
    sampling, sigma_data = settings.sampling, settings.sigma_data
    device, shape = known_BCTHW.device, tuple(known_BCTHW.shape[1:])
    noise, augment_noise = draw_sample_noise(sampling.seed, names, shape, device, pass_number)
    num_known = num_known_latent_frames(sampling.num_input_frames)
    known = KnownFrames(known_BCTHW, num_known, augment_noise)
    fps_B = torch.tensor(settings.fps or [sampling.fps] * len(names), device=device)

    def bind(text: Tensor, frames: KnownFrames) -> NetFn:
        fps = fps_B.repeat(len(text) // len(fps_B))
        return _bind_network(net, frames.mask_B1THW, fps, text, settings.compute_dtype)

    is_res = sampling.sampler in RES_SOLVERS
    guided = _bind_guided(bind, known, text_BSD, negative_BSD, settings, is_res)
    if not is_res:
        sigmas = edm_euler_sigmas(sampling.num_steps, sampling.sigma_min, sampling.sigma_max)
        return sample_edm_euler(
            guided, noise, known, sigmas, sigma_data, sampling.known_frames, on_step
        )
    return sample_res(
        guided,
        noise * sampling.sigma_max,
        sampling.num_steps,
        sampling.sigma_min,
        sampling.sigma_max,
        solver=RES_SOLVERS[sampling.sampler],
        on_step=on_step,
    )


def _bind_guided(
    bind: Callable[[Tensor, KnownFrames], NetFn],
    known: KnownFrames,
    text_BSD: Tensor,
    negative_BSD: Tensor | None,
    settings: Settings,
    is_res: bool,
) -> NetFn:
    """The function that the sampler evaluates, with guidance: F, or for the RES solvers x0.

    With few tokens, the evaluations with and without the prompt are one with twice the batch: it reads the weights
    once, and has half as many kernels to start.

    Args:
        bind: F with text and known frames bound.
        known: of the B videos.
        text_BSD: text contexts.
        negative_BSD: text contexts that guidance moves away from; None = no guidance.
        settings: sampling and sigma_data are used.
        is_res: x0 is wanted in place of F.
    """

    def evaluate(text: Tensor, frames: KnownFrames) -> NetFn:
        net_fn = bind(text, frames)
        return _bind_denoiser(net_fn, frames, settings.sigma_data) if is_res else net_fn

    cond, guidance = evaluate(text_BSD, known), settings.sampling.guidance
    if negative_BSD is None or guidance == 0:
        return cond
    if text_BSD.shape == negative_BSD.shape and _has_few_positions(known):
        twice = replace(
            known,
            latent_BCTHW=torch.cat([known.latent_BCTHW] * 2),
            augment_noise_BCTHW=torch.cat([known.augment_noise_BCTHW] * 2),
        )
        return guide_in_one_batch(evaluate(torch.cat([text_BSD, negative_BSD]), twice), guidance)
    return guide(cond, evaluate(negative_BSD, known), guidance)


def _has_few_positions(known: KnownFrames) -> bool:
    """True if twice the batch is worth its memory; the same on every machine, so that results are too."""
    B, _, T, H, W = known.latent_BCTHW.shape
    return B * T * H * W <= MAX_POSITIONS_IN_ONE_BATCH


def _bind_network(
    net: Network, mask_B1THW: Tensor, fps_B: Tensor, text_BSD: Tensor, dtype: torch.dtype
) -> NetFn:
    """F from (c_in x, c_noise) with mask, rate and text bound; computed in dtype, returned as float32."""
    device_type = text_BSD.device.type

    def net_fn(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
        with torch.autocast(device_type, dtype, enabled=dtype != torch.float32):
            return net(x_BCTHW, c_noise_B, text_BSD, mask_B1THW, fps_B).float()

    return net_fn


def _bind_denoiser(net_fn: NetFn, known: KnownFrames, sigma_data: float) -> NetFn:
    """x0 from (x, sigma): known frames are put in before the network and replaced by their latents after it."""

    def x0_fn(x_BCTHW: Tensor, sigma_B: Tensor) -> Tensor:
        x_in = known.insert(x_BCTHW, sigma_B[0], sigma_data)
        scale = scalings(sigma_B[:1], sigma_data)
        net_output = net_fn(x_in * scale.c_in, scale.c_noise.expand(len(x_in)))
        x0 = scale.c_skip * x_in + scale.c_out * net_output
        is_known = known.indicator(sigma_B[0])
        return is_known * known.latent_BCTHW + (1 - is_known) * x0

    return x0_fn


def noise_seeds(seed: int, sample_id: str, pass_number: int = 0) -> tuple[int, int]:
    """Seeds of a sample's initial noise and of the noise on its known frames, 32 bits each.

    They depend on nothing else, so batch, order and device do not matter.

    Args:
        seed: of the run.
        sample_id: has no colon.
        pass_number: 0 for the first pass, whose seeds do not depend on the number of passes.
    """
    name = f"{seed}:{sample_id}" + (f":{pass_number}" if pass_number else "")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def draw_sample_noise(
    seed: int,
    sample_ids: Sequence[str],
    shape_CTHW: tuple[int, ...],
    device: torch.device,
    pass_number: int = 0,
) -> tuple[Tensor, Tensor]:
    """Initial noise of a batch and the noise on its known frames, unit normal, float32 (B, C, T, H, W) each."""
    seeds = [noise_seeds(seed, sample_id, pass_number) for sample_id in sample_ids]
    initial, augment = (
        torch.stack([arch_invariant_noise(shape_CTHW, one) for one in column]).to(device)
        for column in zip(*seeds, strict=True)
    )
    return initial, augment


@torch.no_grad()
def decode_latents(
    tokenizer: VideoTokenizer, latent_BCTHW: Tensor, sigma_data: float
) -> NDArray[np.uint8]:
    """Latents times sigma_data to uint8 frames (B, T, H, W, 3) in pixels."""
    frames: NDArray[np.uint8] = (
        pixels_from_video(tokenizer.decode(latent_BCTHW / sigma_data)).cpu().numpy()
    )
    return frames
