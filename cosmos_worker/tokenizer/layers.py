"""Layers of the Cosmos-Tokenize1-CV8x8x8 autoencoder: causal factorised convolutions, norms, attention, resampling.

Causal: frame t of an output depends on frames up to t of the input only. Names of parameters are those of the released
files. Legend: B videos, C channels, T frames, H rows, W columns of the level at hand; P patch size.

Source: layers of cosmos_predict1's continuous video tokenizer; diffusers AutoencoderKLCosmos.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_worker.tokenizer import wavelet

NORM_EPS = 1e-6


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
    """A 3x3x3 convolution factorised into rows and columns (1x3x3), then time (3x1x1)."""
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
    """Residual block: norm, SiLU and convolution, twice, plus a shortcut."""

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
    """Cuts a video into wavelet patches; its buffers are constants that released files have among their weights."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        for name, value in patcher_buffers(rounds).items():
            self.register_buffer(name, value)

    def forward(self, video_BCTHW: Tensor) -> Tensor:
        """(B, 3, 1+Pk, H, W) to (B, 3 P^3, 1+k, H/P, W/P)."""
        return wavelet.patch(video_BCTHW, self.rounds)


class Unpatcher(nn.Module):
    """Makes a video of wavelet patches: the inverse of Patcher."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        for name, value in patcher_buffers(rounds).items():
            if name != "patch_size_buffer":
                self.register_buffer(name, value)

    def forward(self, patches_BCTHW: Tensor) -> Tensor:
        """(B, 3 P^3, 1+k, H, W) to (B, 3, 1+Pk, P H, P W)."""
        return wavelet.unpatch(patches_BCTHW, self.rounds)


def patcher_buffers(rounds: int) -> dict[str, Tensor]:
    """The constants of the wavelet transform in released files: Haar filter, its indices, patch size."""
    return {
        "wavelets": torch.full((2,), 2**-0.5),
        "_arange": torch.arange(2),
        "patch_size_buffer": torch.tensor([2**rounds], dtype=torch.int32),
    }
