"""An exact tokenizer without files: three rounds of the causal Haar wavelet.

It has the compression of CV8x8x8 (8 in time, rows and columns, causal) but keeps all values: 1536 channels.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    TokenizerConfig,
)
from cosmos_worker.tokenizer import (
    tokenizer,
    wavelet,
)

ROUNDS = 3
CHANNELS = 3 * LATENT_SCALE**3


class EmbeddedTokenizer:
    """Lossless up to float32 rounding (1e-6), hence exact on 8-bit pixels."""

    def __init__(self, config: TokenizerConfig, device: torch.device) -> None:
        """Raise ConfigError unless the chunk has 8n+1 frames."""
        tokenizer.check_chunk(config.chunk_pixel_frames)
        self._config = config
        self._device = device

    @property
    def latent_channels(self) -> int:
        """1536: all values of an 8x8x8 cell of three colours."""
        return CHANNELS

    @property
    def digest(self) -> str:
        """SHA-256 of the definition; there are no weights."""
        return hashlib.sha256(b"embedded haar 8x8x8, 1 in front, version 1").hexdigest()

    def move(self, device: torch.device) -> None:
        """Compute there from now on; there are no weights."""
        self._device = device

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """See ``VideoTokenizer.encode``."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_video(video_BCTHW, chunk)
        video = video_BCTHW.to(self._device, torch.float32)
        return tokenizer.map_chunks(
            lambda x: wavelet.patch(x, ROUNDS), video, chunk, self._config.batch_size
        )

    @torch.no_grad()
    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """See ``VideoTokenizer.decode``."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_latent(latent_BCTHW, CHANNELS, chunk)
        latent = latent_BCTHW.to(self._device, torch.float32)
        return tokenizer.map_chunks(
            lambda x: wavelet.unpatch(x, ROUNDS),
            latent,
            tokenizer.latent_frames(chunk),
            self._config.batch_size,
        )
