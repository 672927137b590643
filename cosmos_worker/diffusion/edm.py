"""EDM preconditioning, conditioning on known frames in training, and the training loss, as functions of tensors.

Knows no network and no random numbers: noise is an argument, so that the same noise gives the same loss on any number
of processes. Known frames while sampling are in ``known_frames.py``.

Shapes: B batch, C latent channels, T latent frames, H, W latent rows and columns. Sigma is a noise level on the scale
of the latents, whose standard deviation is sigma_data (0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scalings:
    """EDM preconditioning coefficients, each (B,): D(x) = c_skip x + c_out F(c_in x, c_noise)."""

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
    """EDM loss weight (sigma² + sigma_data²) / (sigma sigma_data)², shape (B,); Karras et al. 2022, Table 1."""
    return (sigma_B**2 + sigma_data**2) / (sigma_B * sigma_data) ** 2


@dataclass(frozen=True)
class Noise:
    """All random draws of one training batch.

    Attributes:
        sigma_B: noise level of each sample.
        noise_BCTHW: unit normal.
        augment_sigma_B: noise level of the known frames.
        augment_noise_BCTHW: unit normal, for the known frames.
        num_cond_B: number of known latent frames, at the beginning.
        use_cond_B: False where the known frames are dropped.
        use_text_B: False where the text is dropped.
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
    """Result of :func:`denoise`.

    Attributes:
        x0_pred_BCTHW: predicted clean latents, with the known frames replaced by x0.
        known_B1T11: 1 on known frames.
        logvar_B: log variance of each sample's noise level, of the uncertainty head.
        net_input_BCTHW: noisy latents with the known frames inserted, before c_in.
        net_x0_BCTHW: predicted clean latents as the network gives them.
    """

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
    """Add noise to clean latents, insert the known frames with their own small noise, and predict x0.

    Args:
        model: the network, see :data:`NetFunction`.
        x0_BCTHW: clean latents times sigma_data.
        text_BSD: text embeddings.
        fps_B: frames per second.
        noise: draws of the batch.
        sigma_data: standard deviation of clean latents.

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
    """Scalar losses of a batch.

    Attributes:
        total: minimised; weighted, with the uncertainty if it is used.
        mse: squared error without weight.
        edm: weighted squared error without the uncertainty.
    """

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
            the reference, where known frames contribute logvar only.

    Source: Karras et al. 2022, Table 1; Karras et al. 2024 (EDM2) for the uncertainty.
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
