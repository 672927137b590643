"""The quickstart's video tokenizer: a causal convolutional autoencoder with 8x8x8 compression.

It has the interface of NVIDIA's Cosmos-Tokenize1-CV8x8x8 (1 + 8k frames become 1 + k latent
frames of 16 channels) at a hundredth of its size, so that a training on a CPU runs through the
same code as the real one. Knows nothing about data, losses or files.

Every convolution is two-dimensional with the frames in the batch: oneDNN runs these about three
times faster on one CPU thread than three-dimensional ones with a batch of one.

Shape suffixes: B batch, C channels, T frames (of pixels or of whatever the stage holds), N = B * T
frames in the batch, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
TEMPORAL_FACTOR = 8
SPATIAL_FACTOR = 8
_PATCH = 4  # pixels a side that are folded into channels before the first convolution


class CausalConv(nn.Module):
    """3x3 convolution of each frame and, when `with_past`, of the frame before it."""

    def __init__(self, in_channels: int, out_channels: int, with_past: bool = False) -> None:
        """Build with zero padding in space; the first frame's past is zero too (a start mark)."""
        super().__init__()
        self.with_past = with_past
        self.conv = nn.Conv2d(in_channels * (2 if with_past else 1), out_channels, 3, padding=1)

    def forward(self, x_NCHW: Tensor, num_clips: int) -> Tensor:
        """Convolve frames that belong to `num_clips` clips of equal length."""
        if self.with_past:
            N, C, H, W = x_NCHW.shape
            x_BTCHW = x_NCHW.reshape(num_clips, N // num_clips, C, H, W)
            past = F.pad(x_BTCHW[:, :-1], [0, 0, 0, 0, 0, 0, 1, 0])
            x_NCHW = torch.cat([past, x_BTCHW], dim=2).reshape(N, 2 * C, H, W)
        return self.conv(x_NCHW)


class ResBlock(nn.Module):
    """Residual pair of convolutions; the first one may look at the past."""

    def __init__(self, channels: int, with_past: bool = False) -> None:
        """Build as the identity: the second convolution starts at zero."""
        super().__init__()
        self.conv1 = CausalConv(channels, channels, with_past)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x_NCHW: Tensor, num_clips: int) -> Tensor:
        """Add the block's correction to its input."""
        return x_NCHW + self.conv2(F.silu(self.conv1(F.silu(x_NCHW), num_clips)))


class Encoder(nn.Module):
    """Pixels [B, 3, 1 + 8k, H, W] in [-1, 1] to latents [B, 16, 1 + k, H / 8, W / 8]."""

    def __init__(self, frame: int, clip: int, deep: int, num_deep: int) -> None:
        """Build the three stages.

        Args:
            frame: channels of the stage of single frames, at 1/4 of the resolution.
            clip: channels of the stage of four frames, at 1/4 of the resolution.
            deep: channels of the stage of eight frames, at the latents' resolution.
            num_deep: residual blocks of the last stage.
        """
        super().__init__()
        self.stem = CausalConv(3 * _PATCH**2, frame)
        self.to_clip = nn.Conv2d(4 * frame, clip, 1)
        self.clip_block = ResBlock(clip, with_past=True)
        self.to_deep = nn.Conv2d(8 * clip, deep, 1)
        self.deep_blocks = nn.ModuleList([ResBlock(deep, True) for _ in range(num_deep)])
        self.out = nn.Conv2d(deep, LATENT_CHANNELS, 1)

    def forward(self, x_BCTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode; the second and third element are placeholders, as in NVIDIA's files."""
        B, C, T, H, W = x_BCTHW.shape
        frames = x_BCTHW.transpose(1, 2).reshape(B * T, C, H, W)
        h = F.silu(self.stem(F.pixel_unshuffle(frames, 4), B))
        c, h4, w4 = h.shape[1], H // 4, W // 4
        h = h.reshape(B, T, c, h4, w4)
        first = h[:, :1].expand(-1, 7, -1, -1, -1)  # frame 0 fills a chunk of eight by itself
        h = torch.cat([first, h], dim=1).reshape(-1, 4 * c, h4, w4)
        h = F.silu(self.clip_block(self.to_clip(h), B))
        h = self.to_deep(F.pixel_unshuffle(h.reshape(h.shape[0] // 2, -1, h4, w4), 2))
        for block in self.deep_blocks:
            h = block(h, B)
        z = self.out(F.silu(h))
        latent = z.reshape(B, -1, z.shape[1], z.shape[2], z.shape[3]).transpose(1, 2).contiguous()
        placeholder = torch.zeros(1, dtype=latent.dtype, device=latent.device)
        return latent, placeholder, placeholder


class Decoder(nn.Module):
    """Latents [B, 16, 1 + k, h, w] to pixels [B, 3, 1 + 8k, 8h, 8w], about [-1, 1], not clamped."""

    def __init__(self, frame: int, clip: int, deep: int, num_deep: int) -> None:
        """Build the three stages; arguments as for `Encoder`."""
        super().__init__()
        self.stem = CausalConv(LATENT_CHANNELS, deep, with_past=True)
        self.deep_blocks = nn.ModuleList([ResBlock(deep, True) for _ in range(num_deep)])
        self.to_clip = nn.Conv2d(deep, 8 * clip, 1)
        self.clip_block = ResBlock(clip, with_past=True)
        self.to_frame = nn.Conv2d(clip, 4 * frame, 1)
        self.frame_block = ResBlock(frame)
        self.out = nn.Conv2d(frame, 3 * _PATCH**2, 1)

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        """Decode."""
        B, C, T, H, W = z_BCTHW.shape
        h = self.stem(z_BCTHW.transpose(1, 2).reshape(B * T, C, H, W), B)
        for block in self.deep_blocks:
            h = block(h, B)
        h = F.pixel_shuffle(self.to_clip(F.silu(h)), 2)
        h = self.clip_block(h.reshape(2 * B * T, -1, 2 * H, 2 * W), B)
        h = self.to_frame(F.silu(h)).reshape(B, 8 * T, -1, 2 * H, 2 * W)[:, 7:]
        h = self.frame_block(h.reshape(-1, h.shape[2], 2 * H, 2 * W), B)
        x = F.pixel_shuffle(self.out(F.silu(h)), 4)
        return x.reshape(B, -1, 3, 8 * H, 8 * W).transpose(1, 2).contiguous()


class Autoencoder(nn.Module):
    """Encoder, normalisation of the latents and decoder, as trained."""

    def __init__(self, frame: int = 40, clip: int = 64, deep: int = 112, num_deep: int = 2) -> None:
        """Build; arguments as for `Encoder`."""
        super().__init__()
        self.encoder = Encoder(frame, clip, deep, num_deep)
        self.norm = nn.BatchNorm3d(LATENT_CHANNELS, affine=False, momentum=0.02)
        self.decoder = Decoder(frame, clip, deep, num_deep)

    def forward(self, x_BCTHW: Tensor, max_noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Reconstruct.

        Args:
            x_BCTHW: pixels in [-1, 1].
            max_noise: each clip's latents get noise with a standard deviation drawn from
                [0, max_noise]; it teaches the decoder to bear the errors of a diffusion model.

        Returns:
            The pixels again, and the normalised latents (without noise).
        """
        z = self.norm(self.encoder(x_BCTHW)[0].float())
        if max_noise > 0:
            level = torch.rand(z.shape[0], 1, 1, 1, 1, device=z.device) * max_noise
            return self.decoder(z + level * torch.randn_like(z)), z
        return self.decoder(z), z

    @torch.no_grad()
    def whiten(self, covariance_CC: Tensor) -> None:
        """Fold normalisation and an exact decorrelation of the channels into the convolutions.

        Afterwards the encoder yields latents with unit covariance and the decoder takes them;
        `norm` is not needed any more. Exact, because the decoder's zero padding stays at zero.

        Args:
            covariance_CC: covariance of the encoder's raw latents.
        """
        values, vectors = torch.linalg.eigh(covariance_CC.double())
        whitening = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        scale = (self.norm.running_var.double() + self.norm.eps).rsqrt()
        colouring = torch.diag(scale) @ vectors @ torch.diag(values.sqrt()) @ vectors.T
        out, stem = self.encoder.out, self.decoder.stem.conv
        out.weight.copy_(torch.einsum("dc,cihw->dihw", whitening, out.weight.double()))
        out.bias.copy_(whitening @ (out.bias.double() - self.norm.running_mean.double()))
        weight = stem.weight.double().unflatten(1, (2, LATENT_CHANNELS))  # the past, the present
        stem.weight.copy_(torch.einsum("opchw,cd->opdhw", weight, colouring).flatten(1, 2))
