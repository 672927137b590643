"""The causal Haar wavelet transform, with which the Cosmos tokenizers begin, and an exact tokenizer made of it.

Legend: B videos, C channels, T frames, H rows, W columns.

The exact tokenizer is three rounds of the transform. It compresses as CV8x8x8 does (8-fold in time, rows and columns,
causal), but keeps all values, in 1536 channels. It needs no files.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from cosmos_worker.config.network import LATENT_SCALE, TokenizerConfig
from cosmos_worker.tokenizer import tokenizer

CELL = 8
"""Values of a cell of 2x2x2 pixels."""


def _split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Sums and differences of neighbours along one dimension."""
    even, odd = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return even + odd, even - odd


def _merge(low: Tensor, high: Tensor, dim: int) -> Tensor:
    """Inverse of ``_split`` times 2."""
    return torch.stack((low + high, low - high), dim + 1).flatten(dim, dim + 1)


def analyse(x_BCTHW: Tensor) -> Tensor:
    """One round of the transform: (B, C, T, H, W) to (B, 8C, T/2, H/2, W/2).

    Channels are band-major, LLL (the mean of a cell), LLH, LHL, LHH, HLL, HLH, HHL, HHH with the letters for
    time, rows, columns; inside a band the incoming channels keep their order. T, H, W must be even.

    Source: the patcher of cosmos_predict1's tokenizers: orthonormal Haar on three axes, divided by 2 sqrt 2.
    """
    bands = [
        along_w
        for along_t in _split(x_BCTHW, 2)
        for along_h in _split(along_t, 3)
        for along_w in _split(along_h, 4)
    ]
    return torch.cat(bands, 1).div_(CELL)


def synthesise(x_BCTHW: Tensor) -> Tensor:
    """Inverse of ``analyse``: (B, 8C, T, H, W) to (B, C, 2T, 2H, 2W)."""
    bands = list(x_BCTHW.chunk(CELL, 1))
    for dim in (4, 3, 2):
        bands = [_merge(bands[i], bands[i + 1], dim) for i in range(0, len(bands), 2)]
    return bands[0]


def patch(video_BCTHW: Tensor, rounds: int) -> Tensor:
    """Causal wavelet patches: (B, C, 1+Pk, H, W) to (B, C P^3, 1+k, H/P, W/P) with P = 2 ** rounds.

    The first frame is repeated P times, so that the first patch frame depends on it alone.
    """
    size = 2**rounds
    x = torch.cat((video_BCTHW[:, :, :1].expand(-1, -1, size - 1, -1, -1), video_BCTHW), 2)
    for _ in range(rounds):
        x = analyse(x)
    return x


def unpatch(patches_BCTHW: Tensor, rounds: int) -> Tensor:
    """Inverse of ``patch``."""
    x = patches_BCTHW
    for _ in range(rounds):
        x = synthesise(x)
    return x[:, :, 2**rounds - 1 :]


ROUNDS = 3
CHANNELS = 3 * LATENT_SCALE**3


class EmbeddedTokenizer:
    """A tokenizer without weights, lossless up to float32 rounding (1e-6), hence exact on 8-bit pixels."""

    def __init__(self, config: TokenizerConfig, device: torch.device) -> None:
        """Raise ConfigError unless the chunk has 8n+1 frames."""
        tokenizer.check_chunk(config.chunk_pixel_frames)
        self._config = config
        self._device = device

    @property
    def latent_channels(self) -> int:
        """1536: all values of a cell of 8x8x8 pixels of three colours."""
        return CHANNELS

    @property
    def digest(self) -> str:
        """SHA-256 of the name of the transform; there are no weights."""
        return hashlib.sha256(b"embedded haar 8x8x8, 1 in front, version 1").hexdigest()

    def move(self, device: torch.device) -> None:
        """Compute on another device from now on; there are no weights."""
        self._device = device

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """See ``VideoTokenizer.encode``."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_video(video_BCTHW, chunk)
        video = video_BCTHW.to(self._device, torch.float32)
        return tokenizer.map_chunks(
            lambda x: patch(x, ROUNDS), video, chunk, self._config.batch_size
        )

    @torch.no_grad()
    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """See ``VideoTokenizer.decode``."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_latent(latent_BCTHW, CHANNELS, chunk)
        latent = latent_BCTHW.to(self._device, torch.float32)
        return tokenizer.map_chunks(
            lambda x: unpatch(x, ROUNDS),
            latent,
            tokenizer.latent_frames(chunk),
            self._config.batch_size,
        )
