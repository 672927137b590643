"""Losses of a micro-batch in the types that matrix products may have."""

from __future__ import annotations

import torch
from support.training import SMALL_NET, small_experiment, small_model

from cosmos_worker.train.data import Batch
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.step import batch_loss

SHAPE = (SMALL_NET.latent_channels, 3, 4, 4)


def test_rounded_weights_are_not_kept_for_later() -> None:
    experiment, model = small_experiment(), small_model()
    batch = Batch(torch.zeros(1, *SHAPE), torch.zeros(1, 8, SMALL_NET.text_channels), torch.ones(1))
    seen: list[tuple[bool, bool]] = []
    model.net.final_layer.register_forward_hook(
        lambda *_: seen.append(
            (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled())
        )
    )

    batch_loss(
        model,
        batch,
        draw_noise(SHAPE, experiment, "train", 0, range(1)),
        experiment.diffusion.model_copy(update={"compute_dtype": "bfloat16"}),
        torch.device("cpu"),
    )

    assert seen == [(True, False)]


def test_bfloat16_products_leave_the_loss_in_float32() -> None:
    experiment, model = small_experiment(), small_model()
    generator = torch.Generator().manual_seed(3)
    batch = Batch(
        0.5 * torch.randn(2, *SHAPE, generator=generator),
        torch.randn(2, 8, SMALL_NET.text_channels, generator=generator),
        torch.full((2,), 10.0),
    )
    noise = draw_noise(SHAPE, experiment, "train", 0, range(2))
    exact, rounded = (
        batch_loss(
            model,
            batch,
            noise,
            experiment.diffusion.model_copy(update={"compute_dtype": dtype}),
            torch.device("cpu"),
        )
        for dtype in ("float32", "bfloat16")
    )

    with torch.autocast("cpu", torch.bfloat16):
        inputs = (
            batch.x0_BCTHW,
            noise.sigma_B,
            batch.text_BSD,
            torch.zeros(2, 1, *SHAPE[1:]),
            batch.fps_B,
        )
        net_output, logvar = model(*inputs)

    assert net_output.dtype == torch.bfloat16
    assert logvar.dtype == torch.float32
    assert rounded.total.dtype == torch.float32
    assert rounded.total != exact.total
    torch.testing.assert_close(
        rounded.total, exact.total, rtol=2e-2, atol=2e-2
    )  # bfloat16 has 8 bits
