"""The network of Cosmos-Tokenize1-CV8x8x8: encoder and decoder on Haar wavelet patches, and its weights by name.

Names of parameters are those of the released files. Their shapes say the shape of the network.
The module knows no normalisation and no chunks: those belong to the tokenizer that uses it.
Legend: B videos, C channels, T frames, H rows, W columns of the level at hand.

Source: cosmos_predict1's continuous video tokenizer CV8x8x8; diffusers AutoencoderKLCosmos.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.tokenizer.layers import (
    CausalConv,
    Downsample,
    FrameNorm,
    Level,
    Middle,
    Patcher,
    Unpatcher,
    Upsample,
    factorised_conv,
    patcher_buffers,
)

CONV_DIMS = 5
"""Of the weight of a convolution over frames, rows and columns."""
CONSTANTS_TOLERANCE = 4e-3
"""Of the wavelet constants in released files, which are bfloat16."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the autoencoder; the defaults are those of CV8x8x8 (105,653,696 parameters)."""

    in_channels: int = 3
    out_channels: int = 3
    channels: int = 128
    """Width of level 0 in units of channels_mult."""
    channels_mult: tuple[int, ...] = (2, 4, 4)
    """Width of each level in units of channels."""
    num_res_blocks: int = 2
    """Residual blocks per encoder level; the decoder has one more."""
    patch_size: int = 4
    """Factor of the wavelet patches, a power of two."""
    z_channels: int = 16
    """Channels between the convolutions and the quantisation convolutions."""
    latent_channels: int = 16
    spatial_compression: int = 8
    temporal_compression: int = 8

    @classmethod
    def from_reference(cls, values: Mapping[str, Any]) -> AutoencoderConfig:
        """Read the shape from the reference's options by their names.

        Raises:
            ConfigError: an option that leads to another architecture than CV8x8x8's.
        """
        fixed = {
            "formulation": "AE",
            "encoder": "FACTORIZED",
            "decoder": "FACTORIZED",
            "patch_method": "haar",
            "num_groups": 1,
            "z_factor": 1,
            "legacy_mode": False,
        }
        for name, value in fixed.items():
            if values.get(name, value) != value:
                raise ConfigError(f"{name}: got {values[name]!r}; only {value!r} is implemented")
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        config = cls(**{**known, "channels_mult": tuple(known.get("channels_mult", (2, 4, 4)))})
        first = values.get("resolution", 1024) // config.patch_size
        levels = {first >> level for level in range(len(config.channels_mult))}
        if levels & set(values.get("attn_resolutions", ())):
            raise ConfigError(
                f"attn_resolutions: {values['attn_resolutions']} puts attention into the levels "
                f"{sorted(levels)}; only attention in the middle is implemented"
            )
        return config

    @classmethod
    def from_weights(cls, shapes: Mapping[str, tuple[int, ...]]) -> AutoencoderConfig:
        """Read the shape of an autoencoder from the shapes of its weights.

        Args:
            shapes: by name, of encoder and decoder together.

        Raises:
            CheckpointError: without file and advice: a weight is absent that each such autoencoder has, or has a
                shape that none has.
        """

        def out_channels(name: str) -> int:
            shape = shapes.get(f"{name}.conv3d.weight")
            if shape is None or len(shape) != CONV_DIMS or 0 in shape:
                got = "is absent" if shape is None else f"is {shape} instead of 5 sizes"
                raise CheckpointError(f"{name}.conv3d.weight {got}")
            return shape[0]

        def count(pattern: str) -> int:
            numbers = {int(m[1]) for name in shapes if (m := re.match(pattern, name))}
            return len(numbers)

        channels = out_channels("encoder.conv_in.0")
        patch_channels = shapes["encoder.conv_in.0.conv3d.weight"][1]
        patch_size = next((2**n for n in range(5) if 3 * 8**n == patch_channels), None)
        if patch_size is None:
            raise CheckpointError(
                f"encoder.conv_in.0.conv3d.weight takes {patch_channels} channels, which are no patches of three "
                "colours: 3 x 8^n"
            )
        levels = count(r"encoder\.down\.(\d+)\.")
        widths = [out_channels(f"encoder.down.{i}.block.0.conv1.0") for i in range(levels)]
        uneven = [width for width in widths if width % channels]
        if uneven:
            raise CheckpointError(
                f"the widths {widths} of encoder.down are no multiples of the {channels} channels of encoder.conv_in"
            )
        return cls(
            channels=channels,
            channels_mult=tuple(width // channels for width in widths),
            num_res_blocks=count(r"encoder\.down\.0\.block\.(\d+)\."),
            patch_size=patch_size,
            z_channels=out_channels("encoder.conv_out.0"),
            latent_channels=out_channels("quant_conv"),
            spatial_compression=patch_size << count(r"encoder\.down\.(\d+)\.downsample\.conv1\."),
            temporal_compression=patch_size << count(r"encoder\.down\.(\d+)\.downsample\.conv2\."),
        )

    @property
    def rounds(self) -> int:
        """Rounds of the wavelet transform."""
        return int(math.log2(self.patch_size))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * factor for factor in self.channels_mult)

    def resampling(self, steps_from_top: int) -> tuple[bool, bool]:
        """(time, space): true if the encoder's level halves it, beyond the compression by the patches."""
        time, space = self.temporal_compression, self.spatial_compression
        return (
            steps_from_top < int(math.log2(time)) - self.rounds,
            steps_from_top < int(math.log2(space)) - self.rounds,
        )


class Encoder(nn.Module):
    """Encoder: video to z_channels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.patcher3d = Patcher(config.rounds)
        self.conv_in = factorised_conv(config.in_channels * config.patch_size**3, config.channels)
        widths = config.widths
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            time, space = config.resampling(level)
            is_last = level == len(widths) - 1
            resample = (
                nn.Identity() if is_last or not (time or space) else Downsample(width, time, space)
            )
            before = config.channels if level == 0 else widths[level - 1]
            self.down.append(Level(before, width, config.num_res_blocks, ("downsample", resample)))
        self.mid = Middle(widths[-1])
        self.norm_out = FrameNorm(widths[-1])
        self.conv_out = factorised_conv(widths[-1], config.z_channels)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, 3, 1+8k, 8H, 8W) to (B, z, 1+k, H, W)."""
        x = self.conv_in(self.patcher3d(video_BCTHW))
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Decoder: z_channels to video. ``up`` is indexed by level and runs from the last to the first."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = factorised_conv(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            time, space = config.resampling(level - 1)
            resample = (
                nn.Identity() if level == 0 or not (time or space) else Upsample(width, time, space)
            )
            before = widths[min(level + 1, len(widths) - 1)]
            self.up.append(Level(before, width, config.num_res_blocks + 1, ("upsample", resample)))
        self.norm_out = FrameNorm(widths[0])
        self.conv_out = factorised_conv(widths[0], config.out_channels * config.patch_size**3)
        self.unpatcher3d = Unpatcher(config.rounds)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """(B, z, 1+k, H, W) to (B, 3, 1+8k, 8H, 8W)."""
        x = self.mid(self.conv_in(z_BCTHW))
        for level in reversed(self.up):
            x = level(x)
        return self.unpatcher3d(self.conv_out(F.silu(self.norm_out(x))))


class CausalVideoAutoencoder(nn.Module):
    """Encoder and decoder with the 1x1x1 convolutions to and from the latents; deterministic."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = CausalConv(config.z_channels, config.latent_channels)
        self.post_quant_conv = CausalConv(config.latent_channels, config.z_channels)

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Pixels (B, 3, 1+8k, 8H, 8W) in [-1, 1] to raw latents (B, C, 1+k, H, W), not normalised."""
        return self.quant_conv(self.encoder(video_BCTHW))

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Raw latents (B, C, 1+k, H, W) to pixels (B, 3, 1+8k, 8H, 8W), not clamped."""
        return self.decoder(self.post_quant_conv(latent_BCTHW))


def load_autoencoder(
    state_dict: Mapping[str, Tensor],
    config: AutoencoderConfig,
    where: str = "tokenizer weights",
    remedy: str = "give the configuration with which they were made",
) -> CausalVideoAutoencoder:
    """Build an autoencoder in evaluation mode from given weights, whose memory it shares.

    Args:
        state_dict: names as in the released files, of encoder.jit and decoder.jit together. The wavelet constants may
            be absent.
        config: shape.
        where: files of the weights, for messages.
        remedy: ends the messages.

    Raises:
        CheckpointError: names that are missing or unknown, another shape, or another transform than Haar's.
    """
    with torch.device("meta"):
        network = CausalVideoAutoencoder(config)
    constants = {
        f"{module}.{name}": value
        for module in ("encoder.patcher3d", "decoder.unpatcher3d")
        for name, value in patcher_buffers(config.rounds).items()
    }
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {**{name: constants[name] for name in constants if name in wanted}, **state_dict}
    problems = [f"missing {name}" for name in wanted if name not in given]
    problems += [f"unknown {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {tuple(given[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    problems += [
        f"{name} is {given[name].tolist()} instead of Haar's {value.tolist()}"
        for name, value in constants.items()
        if name in given
        and given[name].shape == value.shape
        and not torch.allclose(given[name].float(), value.float(), atol=CONSTANTS_TOLERANCE)
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(
            f"{where}: {len(problems)} entries do not fit the network: {shown}; {remedy}"
        )
    network.load_state_dict(given, strict=True, assign=True)
    return network.eval().requires_grad_(False)
