"""Random numbers of a training step, each sample with a generator of its own.

A sample's draws depend only on the seed, the step and the sample's position in the global batch: neither on the number
of processes nor on earlier draws, so a checkpoint needs no state of a generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import KNOWN_FRAME_NOISE, STRONG_KNOWN_FRAME_NOISE
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.diffusion.known_frames import AUGMENT_SIGMA


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
    diffusion, conditioning, compat = (
        experiment.diffusion,
        experiment.conditioning,
        experiment.compat,
    )
    sigma = _draw_sigma(generator, diffusion.p_mean, diffusion.p_std, diffusion.sigma_multiplier)
    noise = torch.randn(*shape, generator=generator)
    augment_sigma = _draw_sigma(
        generator,
        *(STRONG_KNOWN_FRAME_NOISE if compat.strong_known_frame_noise else KNOWN_FRAME_NOISE),
    )
    augment_noise = torch.randn(*shape, generator=generator)
    low, high = conditioning.min_cond_latent_frames, conditioning.max_cond_latent_frames
    num_cond = torch.randint(low, high + 1, (), generator=generator)
    use_cond = torch.rand((), generator=generator) >= conditioning.flag_dropout
    use_text = torch.rand((), generator=generator) >= experiment.text.dropout
    if compat.bfloat16_sigma:
        sigma, augment_sigma = sigma.bfloat16().float(), augment_sigma.bfloat16().float()
    return [sigma, noise, augment_sigma, augment_noise, num_cond, use_cond, use_text]


def draw_caption(num_captions: int, seed: int, window_id: str, epoch: int) -> int:
    """Draw the number of the caption that a window has in an epoch; of a single caption nothing is drawn.

    Args:
        num_captions: captions of its clip.
        seed: of the run.
        window_id: of the window.
        epoch: number of the epoch, from 0.
    """
    if num_captions == 1:
        return 0
    generator = sample_generator("caption", seed, window_id, epoch)
    return int(torch.randint(num_captions, (), generator=generator))


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


def draw_noise_of_level(
    shape: Sequence[int], sigma: float, num_known: int, window_ids: Sequence[str]
) -> Noise:
    """Noise of one level, which depends on window and level only: neither on the experiment nor on its seed.

    Args:
        shape: (C, T, H, W) of one latent.
        sigma: the noise level.
        num_known: known latent frames; they and the text are never dropped, and have the noise of sampling.
        window_ids: B windows.
    """
    pairs = []
    for name in window_ids:
        generator = sample_generator("level", name, repr(sigma))
        pairs.append([torch.randn(*shape, generator=generator) for _ in range(2)])
    noise, augment_noise = (torch.stack(values) for values in zip(*pairs, strict=True))
    count = len(window_ids)
    always = torch.ones(count, dtype=torch.bool)
    return Noise(
        sigma_B=torch.full((count,), sigma),
        noise_BCTHW=noise,
        augment_sigma_B=torch.full((count,), AUGMENT_SIGMA),
        augment_noise_BCTHW=augment_noise,
        num_cond_B=torch.full((count,), num_known),
        use_cond_B=always,
        use_text_B=always,
    )
