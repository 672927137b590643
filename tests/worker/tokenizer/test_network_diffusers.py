"""The autoencoder against an independent one, diffusers' AutoencoderKLCosmos, with the same weights, in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from autoencoders import random_autoencoder, their_autoencoder, their_name
from torch import Tensor
from torch.testing import assert_close

from cosmos_worker.tokenizer.network import AutoencoderConfig, load_autoencoder

TINY = AutoencoderConfig(channels=8, num_res_blocks=1)
CASES = [
    pytest.param(TINY, id="narrow"),
    pytest.param(
        replace(TINY, num_res_blocks=2, channels_mult=(1, 3, 2), z_channels=6, latent_channels=6),
        id="other-widths",
    ),
]
RELATIVE_TO_PEAK = 5e-6
"""Float32 sums in another order: convolutions there, sums and differences here, for the wavelet."""


def assert_same(got: Tensor, expected: Tensor) -> None:
    assert_close(got, expected, rtol=0, atol=RELATIVE_TO_PEAK * float(expected.abs().max()))


@pytest.mark.parametrize("frames", [1, 17, 33])
@pytest.mark.parametrize("config", CASES)
@torch.no_grad()
def test_autoencoder_agrees_with_diffusers(config: AutoencoderConfig, frames: int) -> None:
    ours = random_autoencoder(config)
    theirs = their_autoencoder(ours)
    video = torch.rand(2, 3, frames, 32, 48) * 2 - 1

    latent, expected = ours.encode(video), theirs.encode(video).latent_dist.mode()
    pixels, expected_pixels = ours.decode(latent), theirs.decode(latent).sample

    assert_same(latent, expected)
    assert_same(pixels, expected_pixels)
    assert pixels.shape == video.shape
    assert latent.std() > 1e-2
    assert pixels.std() > 1e-2


@torch.no_grad()
def test_comparison_fails_when_one_weight_is_off() -> None:
    ours = random_autoencoder(TINY)
    theirs = their_autoencoder(ours)
    ours.decoder.mid.attn_1[1].v.conv3d.weight.mul_(1.01)
    latent = torch.randn(1, 16, 3, 2, 2)

    with pytest.raises(AssertionError, match="not close"):
        assert_same(ours.decode(latent), theirs.decode(latent).sample)


def test_weights_of_diffusers_load_here() -> None:
    ours = random_autoencoder(TINY)
    theirs = their_autoencoder(ours)
    names = {name: their_name(name, 3) for name, _ in ours.named_parameters()}
    state = theirs.state_dict()

    loaded = load_autoencoder({name: state[there] for name, there in names.items()}, TINY)

    assert set(names.values()) == set(state)
    video = torch.rand(1, 3, 9, 16, 16)
    assert torch.equal(loaded.encode(video), ours.encode(video))
