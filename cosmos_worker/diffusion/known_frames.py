"""Known latent frames while sampling: the form in which the network is given them, with their own small noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosmos_worker.diffusion.edm import scalings

AUGMENT_SIGMA = 0.001
"""Noise level of the known frames in the reference's inference."""


def arch_invariant_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal noise that is the same on every machine and device.

    Args:
        shape: of the result.
        seed: 0 to 2**32 - 1.

    Returns:
        float32 on the CPU.

    Source: cosmos_predict1 arch_invariant_rand (numpy's legacy RandomState).
    """
    noise = np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy(noise.astype(np.float32))


@dataclass(frozen=True)
class KnownFrames:
    """Latent frames at the beginning of a video that are given to the sampler.

    Attributes:
        latent_BCTHW: clean latents times sigma_data; frames after the known ones are ignored.
        num_latent_frames: number of known frames among the T.
        augment_noise_BCTHW: unit noise added to the known frames, the same at every step.
        augment_sigma: standard deviation of this noise.
    """

    latent_BCTHW: Tensor
    num_latent_frames: int
    augment_noise_BCTHW: Tensor
    augment_sigma: float = AUGMENT_SIGMA

    @property
    def mask_B1THW(self) -> Tensor:  # noqa: N802 - shape suffix
        """The network's condition mask: 1 on known frames, 0 elsewhere."""
        mask = torch.zeros_like(self.latent_BCTHW[:, :1])
        mask[:, :, : self.num_latent_frames] = 1
        return mask

    def indicator(self, sigma: Tensor) -> Tensor:
        """1 on frames that are replaced by known ones at this noise level, shape (1, 1, T, 1, 1).

        All zeros at or below the augment sigma: known frames are then denoised like the others.
        """
        replaced = torch.zeros_like(self.latent_BCTHW[:1, :1, :, :1, :1])
        if self.augment_sigma < float(sigma):
            replaced[:, :, : self.num_latent_frames] = 1
        return replaced

    def insert(self, x_BCTHW: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
        """Put the known frames into a noisy state, scaled as the network expects them.

        After the network's own input scaling c_in(sigma) they are scaled by c_in(augment sigma).

        Args:
            x_BCTHW: state at noise level sigma.
            sigma: noise level, shape (), dtype and device of the state.
            sigma_data: standard deviation of clean latents.

        Returns:
            State of the same shape, with the known frames in place.

        Source: cosmos_predict1 Video2World inference, before each call of the network.
        """
        augment_sigma = torch.full_like(sigma, self.augment_sigma)
        ratio = (
            scalings(augment_sigma[None], sigma_data).c_in / scalings(sigma[None], sigma_data).c_in
        )
        noisy_BCTHW = self.latent_BCTHW + self.augment_sigma * self.augment_noise_BCTHW
        replaced = self.indicator(sigma).to(x_BCTHW.dtype)
        return replaced * (noisy_BCTHW * ratio).to(x_BCTHW.dtype) + (1 - replaced) * x_BCTHW
