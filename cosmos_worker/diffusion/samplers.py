"""Noise schedules and solvers for any network given as a callable: EDM Euler, and RES.

EDM Euler is the sampler of the reference's inference, RES that of its training code. Neither knows the network.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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

    Source: Karras et al. 2022, eq. 5; diffusers EDMEulerScheduler.
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


def guide_in_one_batch(fn: NetFn, guidance: float) -> NetFn:
    """Classifier-free guidance as `guide`, by one call with twice the batch in place of two.

    Args:
        fn: takes (2B, ...), of which the first half is with the condition and the second without.
        guidance: factor, above 0.
    """

    def guided(x_BCTHW: Tensor, level_B: Tensor) -> Tensor:
        both = fn(torch.cat([x_BCTHW, x_BCTHW]), torch.cat([level_B, level_B]))
        cond, uncond = both.chunk(2)
        return cond + guidance * (cond - uncond)

    return guided


def _denoise(
    net_fn: NetFn,
    x_BCTHW: Tensor,
    sigma: Tensor,
    known: KnownFrames,
    sigma_data: float,
    known_output: Literal["correct", "legacy"],
) -> Tensor:
    """Denoised latents at one noise level; on known frames the latents themselves take the place of the prediction."""
    scale = scalings(sigma[None], sigma_data)
    net_output = net_fn(x_BCTHW * scale.c_in, scale.c_noise.expand(len(x_BCTHW)))
    if known_output == "correct":
        known_F = (known.latent_BCTHW - scale.c_skip * x_BCTHW) / scale.c_out
    else:
        known_F = known.latent_BCTHW / scale.c_out - scale.c_skip * x_BCTHW
    replaced = known.indicator(sigma)
    net_output = replaced * known_F + (1 - replaced) * net_output
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
        known: frames that are given; their number may be 0.
        sigmas: of `edm_euler_sigmas`, (N + 1,), the last is 0.
        sigma_data: standard deviation of clean latents.
        known_output: "legacy" repeats the wrong inverse preconditioning of the reference
            (L/c_out - c_skip x), which makes known frames 1.6 times too large.
        on_step: called N times.

    Returns:
        Latents (times sigma_data) of the same shape.

    Source: cosmos_predict1 Video2World inference with EDMEulerScheduler. Differs: sigma and
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


X0Fn = Callable[[Tensor, Tensor], Tensor]
"""(x of shape BCTHW, sigma of shape B) -> denoised x0 of shape BCTHW, in the dtype of x."""
Solver = Literal["2ab", "1euler", "2mid"]
SOLVER_ORDERS: dict[Solver, int] = {"2ab": 1, "1euler": 1, "2mid": 2}
"""Evaluations of the denoiser per interval."""


def res_sigmas(
    num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = RHO
) -> Tensor:
    """Noise levels at the ends of num_steps intervals, sigma_max first, sigma_min last.

    Returns:
        float64, shape (num_steps + 1,).

    Raises:
        ValueError: if num_steps is not positive.

    Source: Karras et al. 2022, eq. 5; cosmos_predict1 res_sampler.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} is not positive; use 1 or more")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    ramp = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    sigmas: Tensor = (high + ramp * (low - high)) ** rho
    return sigmas


def _euler_step(x: Tensor, s: Tensor, t: Tensor, x0_s: Tensor) -> Tensor:
    """Euler step from noise level s to t: along the straight line to x0."""
    return (s - t) / s * x0_s + t / s * x


def _second_order_step(
    x: Tensor, s: Tensor, t: Tensor, x0_s: Tensor, other: Tensor, x0_other: Tensor
) -> Tensor:
    """Second-order exponential step from s to t, from x0 at s and at another noise level.

    Source: cosmos_predict1 res_sampler (RES of Zhang et al. 2023, arXiv 2308.02157).
    """
    lambda_s, lambda_t, lambda_other = -torch.log(s), -torch.log(t), -torch.log(other)
    step = lambda_t - lambda_s
    c2 = (lambda_other - lambda_s) / step
    phi1 = torch.expm1(-step) / -step
    phi2 = (phi1 - 1) / -step
    b1, b2 = phi1 - phi2 / c2, phi2 / c2
    return torch.exp(-step) * x + step * (b1 * x0_s + b2 * x0_other)


def _solve(x0_fn: X0Fn, x: Tensor, sigmas: Tensor, solver: Solver) -> Iterator[Tensor]:
    """The state after every interval of the schedule."""
    previous: tuple[Tensor, Tensor] | None = None
    for s, t in pairwise(sigmas):
        x0_s = x0_fn(x, s)
        if solver == "2mid":
            middle = torch.sqrt(s * t)
            x0_middle = x0_fn(_euler_step(x, s, middle, x0_s), middle)
            x = _second_order_step(x, s, t, x0_s, middle, x0_middle)
        elif solver == "2ab" and previous is not None:
            x = _second_order_step(x, s, t, x0_s, *previous)
        else:
            x = _euler_step(x, s, t, x0_s)
        previous = (s, x0_s)
        yield x


def sample_res(
    x0_fn: X0Fn,
    x_BCTHW: Tensor,
    num_steps: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = RHO,
    solver: Solver = "2ab",
    on_step: OnStep | None = None,
) -> Tensor:
    """Integrate from sigma_max to sigma_min, then denoise once more.

    Args:
        x0_fn: denoiser with text, guidance and known frames bound; called in the dtype of the
            state, its result is cast to float64.
        x_BCTHW: state at sigma_max, that is sigma_max times unit noise.
        num_steps: evaluations of the denoiser before the last one, rounded down to whole
            intervals of the solver (2mid needs two evaluations for each).
        sigma_min: last noise level.
        sigma_max: first noise level.
        rho: exponent of the schedule; larger values put more levels near sigma_min.
        solver: 2ab, 1euler or 2mid.
        on_step: called after every interval.

    Returns:
        Denoised latents in the dtype of the state.

    Raises:
        ValueError: if num_steps gives no interval.

    Source: cosmos_predict1 res_sampler with S_churn 0. Differs: no zero-scaled draw of
    noise at every step, which changes no value.
    """
    dtype = x_BCTHW.dtype
    num_intervals = num_steps // SOLVER_ORDERS[solver]
    sigmas = res_sigmas(num_intervals, sigma_min, sigma_max, rho).to(x_BCTHW.device)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x0_fn(x.to(dtype), sigma.expand(len(x)).to(dtype)).to(torch.float64)

    x = x_BCTHW.to(torch.float64)
    for state in _solve(denoise, x, sigmas, solver):
        x = state
        if on_step is not None:
            on_step()
    return denoise(x, sigmas[-1]).to(dtype)
