"""The autoencoder against an independent one, diffusers' AutoencoderKLCosmos, with the same weights, in float32.

Three levels and patches of 4, as the released ones have: for others diffusers puts the decoder's upsampling elsewhere,
since it counts the levels from the other end.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cosmos_worker.tokenizer.network import (
    AutoencoderConfig,
    CausalVideoAutoencoder,
    load_autoencoder,
)

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

RENAMED = [
    (r"\.mid\.block_(\d)\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
    (r"\.mid\.attn_1\.0\.", ".mid_block.attentions.0."),
    (r"\.mid\.attn_1\.1\.", ".mid_block.temp_attentions.0."),
    (r"\.([qkv])\.conv3d\.", r".to_\1."),
    (r"\.proj_out\.conv3d\.", ".to_out.0."),
    (r"\.(down|up)\.(\d)\.block\.(\d)\.", r".\1_blocks.\2.resnets.\3."),
    (r"\.(down|up)\.(\d)\.(down|up)sample\.", r".\1_blocks.\2.\3samplers.0."),
    (r"\.nin_shortcut\.conv3d\.", ".conv_shortcut."),
    (r"\.0\.conv3d\.", ".conv_s."),
    (r"\.1\.conv3d\.", ".conv_t."),
    (r"\.conv3d\.", "."),
]
"""Patterns of our names → names of diffusers, applied in this order."""


def their_name(name: str, num_levels: int) -> str:
    """Diffusers' name of a parameter; it counts the decoder's levels from the other end."""
    for pattern, there in RENAMED:
        name = re.sub(pattern, there, name)
    return re.sub(r"\.up_blocks\.(\d)", lambda m: f".up_blocks.{num_levels - 1 - int(m[1])}", name)


def their_autoencoder(ours: CausalVideoAutoencoder) -> Any:
    """Diffusers' autoencoder with our weights, all of them and no others."""
    from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos

    config = ours.config
    theirs = AutoencoderKLCosmos(
        latent_channels=config.latent_channels,
        encoder_block_out_channels=(config.channels, *config.widths),
        decode_block_out_channels=(*config.widths, config.widths[-1]),
        num_layers=config.num_res_blocks,
        patch_size=config.patch_size,
        spatial_compression_ratio=config.spatial_compression,
        temporal_compression_ratio=config.temporal_compression,
    )
    levels = len(config.channels_mult)
    state = {their_name(name, levels): p for name, p in ours.named_parameters()}
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()


def random_autoencoder(config: AutoencoderConfig) -> CausalVideoAutoencoder:
    """Fresh weights, moved so that norms and biases matter."""
    torch.manual_seed(0)
    network = CausalVideoAutoencoder(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return network


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
