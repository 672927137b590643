"""Random numbers of a training step, each sample with a generator of its own.

A sample's draws depend on (seed, step, its position in the global batch) only: neither on the number of processes nor
on what was drawn before, so nothing has to be saved to continue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.options import Experiment


def sample_generator(*identity: int | str) -> torch.Generator:
    """A CPU generator seeded by the SHA-256 of the identity."""
    text = "/".join(str(part) for part in identity)
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
    return torch.Generator().manual_seed(seed)


def _draw_sigma(
    generator: torch.Generator, p_mean: float, p_std: float, multiplier: float
) -> Tensor:
    normal = torch.randn((), generator=generator, dtype=torch.float64)
    return ((p_mean + p_std * normal).exp() * multiplier).float()


def draw_sample(
    shape: Sequence[int], experiment: Experiment, generator: torch.Generator
) -> list[Tensor]:
    """Draws of one sample in the order of the fields of :class:`Noise`; ``shape`` is (C, T, H, W).

    Source: cosmos-predict1 EDMSDE.sample_t and the conditioner; differs: count of known frames and their dropout
    are drawn per sample, not per batch.
    """
    diffusion, conditioning = experiment.diffusion, experiment.conditioning
    sigma = _draw_sigma(generator, diffusion.p_mean, diffusion.p_std, diffusion.sigma_multiplier)
    noise = torch.randn(*shape, generator=generator)
    augment_sigma = _draw_sigma(
        generator,
        conditioning.augment_sigma_p_mean,
        conditioning.augment_sigma_p_std,
        conditioning.augment_sigma_multiplier,
    )
    augment_noise = torch.randn(*shape, generator=generator)
    low, high = conditioning.min_cond_latent_frames, conditioning.max_cond_latent_frames
    num_cond = torch.randint(low, high + 1, (), generator=generator)
    use_cond = torch.rand((), generator=generator) >= conditioning.flag_dropout
    use_text = torch.rand((), generator=generator) >= experiment.text.dropout
    if diffusion.sigma_dtype == "bfloat16":
        sigma, augment_sigma = sigma.bfloat16().float(), augment_sigma.bfloat16().float()
    return [sigma, noise, augment_sigma, augment_noise, num_cond, use_cond, use_text]


def draw_noise(
    shape: Sequence[int], experiment: Experiment, stream: str, step: int, positions: Sequence[int]
) -> Noise:
    """Draws of the samples at these positions of a step's global batch.

    Args:
        shape: (C, T, H, W) of one latent.
        experiment: distributions.
        stream: name of the stream, such as "train"; other streams are independent.
        step: optimizer step.
        positions: positions in the global batch.
    """
    seed = experiment.trainer.seed
    samples = [
        draw_sample(shape, experiment, sample_generator(stream, seed, step, position))
        for position in positions
    ]
    return Noise(*(torch.stack(values) for values in zip(*samples, strict=True)))
