"""EDM preconditioning, conditioning on known frames, and the training loss, as functions of tensors.

B batch, C latent channels, T latent frames, H W latent rows and columns. Knows no network and no random numbers:
noise comes in, so that the same noise gives the same loss on any number of processes.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Scalings:
    """EDM coefficients, each (B,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def append_dims(values_B: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, ..., 1) with the rank of ``like``."""
    return values_B.reshape(-1, *[1] * (like.ndim - 1))


def scalings(sigma_B: Tensor, sigma_data: float) -> Scalings:
    """EDM preconditioning coefficients.

    Args:
        sigma_B: noise level, shape (B,), > 0. Its dtype decides the arithmetic.
        sigma_data: standard deviation of clean latents (Cosmos-Predict1: 0.5).

    Raises:
        ValueError: if sigma_B is not one-dimensional.

    Source: Karras et al. 2022, Table 1 "Ours"; cosmos-predict1 EDMScaling.
    """
    if sigma_B.ndim != 1:
        raise ValueError(f"sigma: got shape {tuple(sigma_B.shape)}; expected (B,)")
    total = sigma_B**2 + sigma_data**2
    return Scalings(
        c_skip=sigma_data**2 / total,
        c_out=sigma_B * sigma_data / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=0.25 * sigma_B.log(),
    )


def loss_weight(sigma_B: Tensor, sigma_data: float) -> Tensor:
    """(sigma² + sigma_data²) / (sigma sigma_data)², shape (B,)."""
    return (sigma_B**2 + sigma_data**2) / (sigma_B * sigma_data) ** 2


@dataclass(frozen=True)
class Noise:
    """Everything random of one training batch.

    sigma_B and augment_sigma_B: noise levels; noise and augment_noise: unit normal, (B, C, T, H, W);
    num_cond_B: known latent frames; use_cond_B, use_text_B: False where dropped.
    """

    sigma_B: Tensor
    noise_BCTHW: Tensor
    augment_sigma_B: Tensor
    augment_noise_BCTHW: Tensor
    num_cond_B: Tensor
    use_cond_B: Tensor
    use_text_B: Tensor


def known_frames(num_cond_B: Tensor, like_BCTHW: Tensor) -> Tensor:
    """Indicator of known frames, (B, 1, T, 1, 1): 1 where t < num_cond."""
    frames_T = torch.arange(like_BCTHW.shape[2], device=num_cond_B.device)
    return (frames_T[None] < num_cond_B[:, None]).to(like_BCTHW.dtype)[:, None, :, None, None]


@dataclass(frozen=True)
class Denoised:
    """Result of :func:`denoise`: x0_pred with known frames replaced by x0, and the log variance (B,)."""

    x0_pred_BCTHW: Tensor
    known_B1T11: Tensor
    logvar_B: Tensor
    net_input_BCTHW: Tensor
    net_x0_BCTHW: Tensor


NetFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(c_in x, c_noise (B,), text, mask (B, 1, T, H, W), fps (B,)) → (F, logvar (B,))."""


def denoise(
    model: NetFunction,
    x0_BCTHW: Tensor,
    text_BSD: Tensor,
    fps_B: Tensor,
    noise: Noise,
    sigma_data: float,
) -> Denoised:
    """Corrupt clean latents, show the known frames with their own small noise, and predict x0.

    Known frames enter as (x0 + sigma_a n) c_in(sigma_a) / c_in(sigma), so that after the global c_in(sigma) they are
    scaled for their own noise level; where the condition is dropped they and their mask are zeros.

    Source: cosmos-predict1 ExtendDiffusionModel.denoise, mode noise_with_sigma.
    """
    known = known_frames(noise.num_cond_B, x0_BCTHW)
    main, augment = scalings(noise.sigma_B, sigma_data), scalings(noise.augment_sigma_B, sigma_data)
    xt = x0_BCTHW + append_dims(noise.sigma_B, x0_BCTHW) * noise.noise_BCTHW
    noisy_known = (
        x0_BCTHW + append_dims(noise.augment_sigma_B, x0_BCTHW) * noise.augment_noise_BCTHW
    )
    shown = append_dims(noise.use_cond_B.to(x0_BCTHW.dtype), x0_BCTHW)
    cond = noisy_known * append_dims(augment.c_in / main.c_in, x0_BCTHW) * shown
    x_in = known * cond + (1 - known) * xt
    mask_B1THW = (known * shown).expand(-1, 1, -1, *x0_BCTHW.shape[3:])
    text_BSD = text_BSD * append_dims(noise.use_text_B.to(text_BSD.dtype), text_BSD)
    net_output, logvar_B = model(
        x_in * append_dims(main.c_in, x_in), main.c_noise, text_BSD, mask_B1THW, fps_B
    )
    net_x0 = (
        append_dims(main.c_skip, x_in) * x_in + append_dims(main.c_out, x_in) * net_output.float()
    )
    x0_pred = known * x0_BCTHW + (1 - known) * net_x0
    return Denoised(x0_pred, known, logvar_B, x_in, net_x0)


@dataclass(frozen=True)
class Loss:
    """Scalars: total is what is minimised; mse and edm are its parts without weight and without logvar."""

    total: Tensor
    mse: Tensor
    edm: Tensor


def edm_loss(
    denoised: Denoised,
    x0_BCTHW: Tensor,
    sigma_B: Tensor,
    sigma_data: float,
    use_logvar: bool = True,
    only_generated: bool = True,
) -> Loss:
    """Weighted squared error, with the learned uncertainty e exp(-logvar) + logvar (Kendall).

    Args:
        denoised: result of :func:`denoise`.
        x0_BCTHW: clean latents.
        sigma_B: noise levels.
        sigma_data: standard deviation of clean latents.
        use_logvar: weigh by the uncertainty head.
        only_generated: mean over generated frames of each sample, then over samples; False = over all elements, as
            the reference, whose known frames add logvar only.
    """
    weight = append_dims(loss_weight(sigma_B, sigma_data), x0_BCTHW)
    squared = (x0_BCTHW - denoised.x0_pred_BCTHW) ** 2
    error = weight * squared
    logvar = append_dims(denoised.logvar_B.float(), error)
    total = error * torch.exp(-logvar) + logvar if use_logvar else error
    if not only_generated:
        return Loss(total.mean(), squared.mean(), error.mean())
    generated = 1 - denoised.known_B1T11

    def mean(values: Tensor) -> Tensor:
        per_frame_BT = values.mean(dim=(1, 3, 4))
        kept_BT = generated[:, 0, :, 0, 0]
        return ((per_frame_BT * kept_BT).sum(1) / kept_BT.sum(1)).mean()

    return Loss(mean(total), mean(squared), mean(error))


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
    """Latent frames that are given, at the beginning of the video.

    Attributes:
        latent_BCTHW: clean latents times sigma_data; frames after the known ones are ignored.
        num_latent_frames: how many of the T frames are known.
        augment_noise_BCTHW: unit noise added to the known frames, the same at every step.
        augment_sigma: its standard deviation.
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
        """1 on frames that are held at this noise level, shape (1,1,T,1,1).

        All zeros at or below the augment sigma: known frames are then denoised like the others.
        """
        held = torch.zeros_like(self.latent_BCTHW[:1, :1, :, :1, :1])
        if self.augment_sigma < float(sigma):
            held[:, :, : self.num_latent_frames] = 1
        return held

    def insert(self, x_BCTHW: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
        """Put the known frames into a noisy state, scaled as the network expects them.

        After the network's own input scaling c_in(sigma) they are scaled by c_in(augment sigma).

        Args:
            x_BCTHW: state at noise level sigma.
            sigma: noise level, shape (), dtype and device of the state.
            sigma_data: standard deviation of clean latents.

        Returns:
            State of the same shape, with the held frames replaced.

        Source: cosmos_predict1 V2W sampler, facts 5.5 steps 1 and 3.
        """
        augment_sigma = torch.full_like(sigma, self.augment_sigma)
        ratio = (
            scalings(augment_sigma[None], sigma_data).c_in / scalings(sigma[None], sigma_data).c_in
        )
        noisy_BCTHW = self.latent_BCTHW + self.augment_sigma * self.augment_noise_BCTHW
        held = self.indicator(sigma).to(x_BCTHW.dtype)
        return held * (noisy_BCTHW * ratio).to(x_BCTHW.dtype) + (1 - held) * x_BCTHW
