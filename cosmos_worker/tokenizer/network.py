"""The autoencoder behind Cosmos-Tokenize1-CV8x8x8: causal, factorised convolutions on Haar wavelet patches.

Names of parameters are those of the released files, so that ``torch.jit.load(...).state_dict()`` loads as well.
The module knows no normalisation and no chunks: those belong to the tokenizer that uses it.
Legend: B videos, C channels, T frames, H rows, W columns of the level at hand.

Source: reference facts 6.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.tokenizer import embedded

NORM_EPS = 1e-6


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
        """From the reference's option names.

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

    @property
    def rounds(self) -> int:
        """Rounds of the wavelet transform."""
        return int(math.log2(self.patch_size))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * factor for factor in self.channels_mult)

    def resampling(self, steps_from_top: int) -> tuple[bool, bool]:
        """Whether (time, space) is halved behind the encoder's level; the patches have done their part."""
        time, space = self.temporal_compression, self.spatial_compression
        return (
            steps_from_top < int(math.log2(time)) - self.rounds,
            steps_from_top < int(math.log2(space)) - self.rounds,
        )


# --- parts -----------------------------------------------------------------------------------


class CausalConv(nn.Module):
    """3-D convolution whose time padding repeats the first frame in front; space is padded with zeros."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.time_padding = kernel[0] - 1 + 1 - stride[0]
        self.conv3d = nn.Conv3d(
            in_channels, out_channels, kernel, stride, padding=(0, padding, padding)
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T / stride, H / stride, W / stride)."""
        if self.time_padding:
            front = x_BCTHW[:, :, :1].expand(-1, -1, self.time_padding, -1, -1)
            x_BCTHW = torch.cat((front, x_BCTHW), 2)
        return self.conv3d(x_BCTHW)


def factorised_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3x3 convolution as rows and columns, then time."""
    return nn.Sequential(
        CausalConv(in_channels, out_channels, (1, 3, 3), padding=1),
        CausalConv(out_channels, out_channels, (3, 1, 1)),
    )


class FrameNorm(nn.Module):
    """GroupNorm with one group over each frame by itself, which keeps the network causal."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels, eps=NORM_EPS)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        frames = x_BCTHW.transpose(1, 2)
        return self.norm(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = factorised_conv(in_channels, out_channels)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = factorised_conv(out_channels, out_channels)
        self.nin_shortcut = (
            nn.Identity() if in_channels == out_channels else CausalConv(in_channels, out_channels)
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H, W)."""
        h = self.conv1(F.silu(self.norm1(x_BCTHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x_BCTHW) + h


class Attention(nn.Module):
    """Single-head attention with a residual: within each frame, or causally along time at each pixel."""

    def __init__(self, channels: int, over_time: bool) -> None:
        super().__init__()
        self.over_time = over_time
        self.norm = FrameNorm(channels)
        self.q = CausalConv(channels, channels)
        self.k = CausalConv(channels, channels)
        self.v = CausalConv(channels, channels)
        self.proj_out = CausalConv(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        h = self.norm(x_BCTHW)
        order = (0, 3, 4, 2, 1) if self.over_time else (0, 2, 3, 4, 1)  # BHWTC or BTHWC
        first, last = (0, 2) if self.over_time else (0, 1)
        q, k, v = (part(h).permute(order) for part in (self.q, self.k, self.v))
        shape = q.shape
        q, k, v = (y.flatten(first, last).flatten(1, -2).unsqueeze(1) for y in (q, k, v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.over_time)
        back = (0, 4, 3, 1, 2) if self.over_time else (0, 4, 1, 2, 3)
        return x_BCTHW + self.proj_out(h.reshape(shape).permute(back))


class Middle(nn.Module):
    """Residual block, attention over space then time, residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = nn.Sequential(Attention(channels, False), Attention(channels, True))
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Same shape."""
        return self.block_2(self.attn_1(self.block_1(x_BCTHW)))


class Downsample(nn.Module):
    """Halves space, then time: strided convolution plus average pool, then 1x1x1."""

    def __init__(self, channels: int, time: bool, space: bool) -> None:
        super().__init__()
        self.conv1 = CausalConv(channels, channels, (1, 3, 3), (1, 2, 2)) if space else None
        self.conv2 = CausalConv(channels, channels, (3, 1, 1), (2, 1, 1)) if time else None
        self.conv3 = CausalConv(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, 1+2k, H, W) to (B, C, 1+k, H/2, W/2)."""
        x = x_BCTHW
        if self.conv1 is not None:
            x = F.pad(x, (0, 1, 0, 1))
            x = self.conv1(x) + F.avg_pool3d(x, (1, 2, 2))
        if self.conv2 is not None:
            x = torch.cat((x[:, :, :1], x), 2)
            x = self.conv2(x) + F.avg_pool3d(x, (2, 1, 1))
        return self.conv3(x)


class Upsample(nn.Module):
    """Doubles time (the first frame stays single), then space: repetition plus convolution, then 1x1x1."""

    def __init__(self, channels: int, time: bool, space: bool) -> None:
        super().__init__()
        self.conv1 = CausalConv(channels, channels, (3, 1, 1)) if time else None
        self.conv2 = CausalConv(channels, channels, (1, 3, 3), padding=1) if space else None
        self.conv3 = CausalConv(channels, channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, 1+k, H, W) to (B, C, 1+2k, 2H, 2W)."""
        x = x_BCTHW
        if self.conv1 is not None:
            x = x.repeat_interleave(2, 2)[:, :, 1:]
            x = self.conv1(x) + x
        if self.conv2 is not None:
            x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
            x = self.conv2(x) + x
        return self.conv3(x)


class Level(nn.Module):
    """Residual blocks of one resolution and the change of resolution behind them."""

    def __init__(
        self, in_channels: int, channels: int, num_blocks: int, resample: tuple[str, nn.Module]
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResBlock(in_channels if i == 0 else channels, channels) for i in range(num_blocks)
        )
        self._resample_name, module = resample
        self.add_module(self._resample_name, module)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to the next level's shape."""
        for block in self.block:
            x_BCTHW = block(x_BCTHW)
        return self.get_submodule(self._resample_name)(x_BCTHW)


class Patcher(nn.Module):
    """Wavelet patches; its buffers are constants that released files carry."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        for name, value in patcher_buffers(rounds).items():
            self.register_buffer(name, value)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, 3, 1+Pk, H, W) to (B, 3 P^3, 1+k, H/P, W/P)."""
        return embedded.patch(video_BCTHW, self.rounds)


class Unpatcher(nn.Module):
    """Inverse of Patcher."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        for name, value in patcher_buffers(rounds).items():
            if name != "patch_size_buffer":
                self.register_buffer(name, value)

    def forward(self, patches_BCTHW: Tensor) -> Tensor:
        """(B, 3 P^3, 1+k, H, W) to (B, 3, 1+Pk, P H, P W)."""
        return embedded.unpatch(patches_BCTHW, self.rounds)


def patcher_buffers(rounds: int) -> dict[str, Tensor]:
    """The constants: Haar filter, its indices, patch size."""
    return {
        "wavelets": torch.full((2,), 2**-0.5),
        "_arange": torch.arange(2),
        "patch_size_buffer": torch.tensor([2**rounds], dtype=torch.int32),
    }


# --- the network -----------------------------------------------------------------------------


class Encoder(nn.Module):
    """Video to z_channels."""

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
    """z_channels to video; ``up`` is indexed by level, so it runs from the last to the first."""

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
    """Deterministic autoencoder of videos."""

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
    state_dict: Mapping[str, Tensor], config: AutoencoderConfig
) -> CausalVideoAutoencoder:
    """An autoencoder with given weights, which it shares, in evaluation mode.

    Args:
        state_dict: names as in the released files; the union of the state dicts of encoder.jit and decoder.jit
            serves. The wavelet constants may be absent.
        config: shape.

    Raises:
        CheckpointError: names that are missing or unknown, or another shape.
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
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(
            f"tokenizer weights: {len(problems)} entries do not fit the configuration: {shown}; "
            "give the configuration with which they were made"
        )
    network.load_state_dict(given, strict=True, assign=True)
    return network.eval().requires_grad_(False)
