"""The Euler sampler of the reference's inference, for any network given as a callable.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.diffusion.edm import scalings
from cosmos_worker.diffusion.known_frames import KnownFrames

NetFn = Callable[[Tensor, Tensor], Tensor]
"""(c_in x of shape BCTHW, c_noise of shape B) -> network output F of shape BCTHW."""
OnStep = Callable[[], None]
"""Called after every sampler step."""

RHO = 7.0


def edm_euler_sigmas(
    num_steps: int, sigma_min: float = 0.0002, sigma_max: float = 80.0, rho: float = RHO
) -> Tensor:
    """Noise levels of the sampler, from sigma_max to sigma_min, then 0.

    Returns:
        float32, shape (num_steps + 1,), computed in float32 as the reference's scheduler does.

    Raises:
        ValueError: if num_steps is not positive.

    Source: Karras et al. 2022, eq. 5; diffusers EDMEulerScheduler, facts 5.5.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} is not positive; use 1 or more")
    ramp = torch.linspace(0, 1, num_steps)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, torch.zeros(1)])


def guide(cond_fn: NetFn, uncond_fn: NetFn, guidance: float) -> NetFn:
    """Classifier-free guidance: F = F_cond + guidance (F_cond - F_uncond).

    Works on network outputs and on denoised latents alike. Guidance 0 makes a single pass.
    """
    if guidance == 0:
        return cond_fn

    def guided(x_BCTHW: Tensor, level_B: Tensor) -> Tensor:
        cond = cond_fn(x_BCTHW, level_B)
        return cond + guidance * (cond - uncond_fn(x_BCTHW, level_B))

    return guided


def _denoise(
    net_fn: NetFn,
    x_BCTHW: Tensor,
    sigma: Tensor,
    known: KnownFrames,
    sigma_data: float,
    known_output: Literal["correct", "legacy"],
) -> Tensor:
    """x0 at one noise level; on held frames the network's output is overruled by the latents."""
    scale = scalings(sigma[None], sigma_data)
    net_output = net_fn(x_BCTHW * scale.c_in, scale.c_noise.expand(len(x_BCTHW)))
    if known_output == "correct":
        known_F = (known.latent_BCTHW - scale.c_skip * x_BCTHW) / scale.c_out
    else:
        known_F = known.latent_BCTHW / scale.c_out - scale.c_skip * x_BCTHW
    held = known.indicator(sigma)
    net_output = held * known_F + (1 - held) * net_output
    return scale.c_skip * x_BCTHW + scale.c_out * net_output


def sample_edm_euler(
    net_fn: NetFn,
    noise_BCTHW: Tensor,
    known: KnownFrames,
    sigmas: Tensor,
    sigma_data: float = 0.5,
    known_output: Literal["correct", "legacy"] = "correct",
    on_step: OnStep | None = None,
) -> Tensor:
    """Draw latents as the reference's Video2World inference does.

    Args:
        net_fn: network with text, mask and guidance bound (see `guide`).
        noise_BCTHW: unit noise, float32; the state keeps its dtype and device.
        known: frames that are given; may be none of them.
        sigmas: of `edm_euler_sigmas`, (N + 1,), the last is 0.
        sigma_data: standard deviation of clean latents.
        known_output: "legacy" repeats the snapshot's wrong inverse preconditioning
            (L/c_out - c_skip x), which makes known frames 1.6 times too large.
        on_step: called N times.

    Returns:
        Latents (times sigma_data) of the same shape.

    Source: cosmos_predict1 V2W inference with EDMEulerScheduler, facts 5.5. Differs: sigma and
    state are float32 where the reference rounds them to bfloat16.
    """
    sigmas = sigmas.to(noise_BCTHW)
    sigma_max = float(sigmas[0])
    x_BCTHW = noise_BCTHW * math.sqrt(sigma_max**2 + 1)
    for sigma, sigma_next in pairwise(sigmas):
        x_BCTHW = known.insert(x_BCTHW, sigma, sigma_data)
        x0_BCTHW = _denoise(net_fn, x_BCTHW, sigma, known, sigma_data, known_output)
        x_BCTHW = x_BCTHW + (x_BCTHW - x0_BCTHW) / sigma * (sigma_next - sigma)
        if on_step is not None:
            on_step()
    return x_BCTHW
