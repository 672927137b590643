"""Our tokenizer network and diffusers' AutoencoderKLCosmos with the same weights. Benchmarks and tests import this.

Three levels and patches of 4, as the released ones have: for others diffusers puts the decoder's upsampling elsewhere,
since it counts the levels from the other end.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder

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


def random_autoencoder(config: AutoencoderConfig) -> CausalVideoAutoencoder:
    """Fresh weights, moved so that norms and biases matter."""
    torch.manual_seed(0)
    network = CausalVideoAutoencoder(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return network


def their_name(name: str, num_levels: int) -> str:
    """Diffusers' name of a parameter; it counts the decoder's levels from the other end."""
    for pattern, there in RENAMED:
        name = re.sub(pattern, there, name)
    return re.sub(r"\.up_blocks\.(\d)", lambda m: f".up_blocks.{num_levels - 1 - int(m[1])}", name)


def their_autoencoder(ours: CausalVideoAutoencoder, **more: object) -> Any:  # noqa: ANN401 - diffusers has no types
    """Diffusers' autoencoder with our weights, all of them and no others; further options of its own in ``more``."""
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
        **more,
    )
    levels = len(config.channels_mult)
    state = {their_name(name, levels): p for name, p in ours.named_parameters()}
    theirs.load_state_dict(state, strict=True)
    return theirs.eval()
