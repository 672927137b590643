"""Tokenizers from their files: NVIDIA's encoder.jit, decoder.jit and mean_std.pt, or the embedded one.

Source: cosmos_predict1 loads the same files. Differs: our own network with their weights computes, unless
their programs are asked for; normalisation and results are float32, and a single frame can be encoded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal

import torch
from torch import Tensor

from cosmos_worker.config.network import LATENT_SCALE, TokenizerConfig, TokenizerRuntime
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.storage.volumes import (
    DECODER_FILE,
    ENCODER_FILE,
    MEAN_STD_FILE,
    sha256_of_file,
)
from cosmos_worker.tokenizer import tokenizer
from cosmos_worker.tokenizer.modules import CHANNELS, load_modules
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer
from cosmos_worker.tokenizer.wavelet import EmbeddedTokenizer
from cosmos_worker.weights.tensor_files import read_saved

TIME_SLOTS = 16
"""Latent frames of a chunk that mean_std.pt has statistics for."""


class FileTokenizer:
    """The tokenizer of one folder: encoder, decoder and statistics of their results.

    Computes in ``config.dtype`` on CUDA and in float32 on CPU.
    """

    def __init__(
        self,
        folder: Path,
        config: TokenizerConfig,
        device: torch.device,
        runtime: TokenizerRuntime = "native",
    ) -> None:
        """Load the files.

        Raises:
            CheckpointError: a file is missing, damaged or of another kind, or a program is not the one that was
                fetched.
            ConfigError: the chunk is not 8n+1 frames, or longer than the statistics.
        """
        tokenizer.check_chunk(config.chunk_pixel_frames)
        self._files = {name: folder / name for name in (ENCODER_FILE, DECODER_FILE, MEAN_STD_FILE)}
        missing = [name for name, path in self._files.items() if not path.is_file()]
        if missing:
            raise CheckpointError(
                f"{folder}: no {', '.join(missing)}; a tokenizer folder holds "
                f"{', '.join(self._files)}: run fetch-model again"
            )
        if runtime == "torchscript":  # programs: never others than those that were fetched
            for path in self._files.values():
                check_recorded(path)
        self._config = config
        self._device = device
        self._dtype = getattr(torch, config.dtype) if device.type == "cuda" else torch.float32
        self._mean_CT, self._std_CT = load_mean_std(self._files[MEAN_STD_FILE], device)
        if tokenizer.latent_frames(config.chunk_pixel_frames) > TIME_SLOTS:
            raise ConfigError(
                f"tokenizer.chunk_pixel_frames: {config.chunk_pixel_frames} is more than the statistics of "
                f"{self._files[MEAN_STD_FILE]} cover; use at most {tokenizer.pixel_frames(TIME_SLOTS)}"
            )
        self._encoder, self._decoder = load_modules(
            self._files[ENCODER_FILE], self._files[DECODER_FILE], runtime, device, self._dtype
        )

    @property
    def latent_channels(self) -> int:
        """16, as all released continuous tokenizers have."""
        return CHANNELS

    @property
    def digest(self) -> str:
        """SHA-256 over encoder.jit and mean_std.pt; the decoder does not decide latents."""
        parts = [sha256_of_file(self._files[name]) for name in (ENCODER_FILE, MEAN_STD_FILE)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def move(self, device: torch.device) -> None:
        """See ``VideoTokenizer.move``."""
        self._encoder, self._decoder = self._encoder.to(device), self._decoder.to(device)
        self._mean_CT, self._std_CT = self._mean_CT.to(device), self._std_CT.to(device)
        self._device = device

    @torch.no_grad()
    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """(encoder(x) - mean) / std, see ``VideoTokenizer.encode``."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_video(video_BCTHW, chunk)
        return tokenizer.map_chunks(
            self._encode_chunks, video_BCTHW, chunk, self._config.batch_size
        )

    @torch.no_grad()
    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """decoder(z * std + mean), see ``VideoTokenizer.decode``; half as many chunks per call as encode."""
        chunk = self._config.chunk_pixel_frames
        tokenizer.check_latent(latent_BCTHW, CHANNELS, chunk)
        batch_size = max(1, self._config.batch_size // 2)
        return tokenizer.map_chunks(
            self._decode_chunks, latent_BCTHW, tokenizer.latent_frames(chunk), batch_size
        )

    def _encode_chunks(self, video_BCTHW: Tensor) -> Tensor:
        batch, _, frames, height, width = video_BCTHW.shape
        output = self._encoder(video_BCTHW.to(self._device, self._dtype))
        latent = output[0] if isinstance(output, tuple) else output
        expected = (
            batch,
            CHANNELS,
            tokenizer.latent_frames(frames),
            height // LATENT_SCALE,
            width // LATENT_SCALE,
        )
        self._check_result(ENCODER_FILE, latent, expected)
        mean_CT11, std_CT11 = self._statistics(latent.shape[2])
        return (latent.float() - mean_CT11) / std_CT11

    def _decode_chunks(self, latent_BCTHW: Tensor) -> Tensor:
        batch, _, frames, height, width = latent_BCTHW.shape
        mean_CT11, std_CT11 = self._statistics(frames)
        raw = latent_BCTHW.to(self._device, torch.float32) * std_CT11 + mean_CT11
        output = self._decoder(raw.to(self._dtype))
        video = output[0] if isinstance(output, tuple) else output
        expected = (
            batch,
            3,
            tokenizer.pixel_frames(frames),
            height * LATENT_SCALE,
            width * LATENT_SCALE,
        )
        self._check_result(DECODER_FILE, video, expected)
        return video.float()

    def _statistics(self, frames: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the first latent frames, (C, T, 1, 1) each."""
        mean_CT, std_CT = self._mean_CT[:, :frames], self._std_CT[:, :frames]
        return mean_CT[..., None, None], std_CT[..., None, None]

    def _check_result(self, name: str, result: Tensor, expected: tuple[int, ...]) -> None:
        if tuple(result.shape) != expected:
            raise CheckpointError(
                f"{self._files[name]}: returned shape {tuple(result.shape)} instead of {expected}; "
                f"use a causal 8x8x8 tokenizer with {CHANNELS} channels"
            )


def load_mean_std(
    path: Path, device: torch.device, remedy: str = "run fetch-model again"
) -> tuple[Tensor, Tensor]:
    """Load the statistics of the encoder's output per channel and latent frame of a chunk.

    Args:
        path: mean_std.pt, a pair (mean, std) of 256 floats each.
        device: of the result.
        remedy: advice at the end of messages about the content of the file.

    Returns:
        mean and std, float32 (16 channels, 16 latent frames) each.

    Raises:
        CheckpointError: the file holds no such pair, or a value that cannot be a mean or a standard deviation.
    """
    pair = read_saved(path, remedy)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        got = f"{type(pair).__name__}{f' of {len(pair)}' if hasattr(pair, '__len__') else ''}"
        raise CheckpointError(f"{path}: got {got}; expected the pair (mean, std)")
    tensors = []
    for name, values in zip(("mean", "std"), pair, strict=True):
        tensor = torch.as_tensor(values, dtype=torch.float32).flatten()
        if tensor.numel() != CHANNELS * TIME_SLOTS:
            raise CheckpointError(
                f"{path}: {name} has {tensor.numel()} values; expected {CHANNELS * TIME_SLOTS} = "
                f"{CHANNELS} channels x {TIME_SLOTS} latent frames"
            )
        if not bool(tensor.isfinite().all()) or (name == "std" and float(tensor.min()) <= 0):
            raise CheckpointError(
                f"{path}: {name} has values that are not finite{' and positive' * (name == 'std')}; {remedy}"
            )
        tensors.append(tensor.view(CHANNELS, TIME_SLOTS).to(device))
    return tensors[0], tensors[1]


EMBEDDED: Final = "embedded"
"""Name that is given in place of a folder for the exact tokenizer, which needs no files."""


def load_tokenizer(
    folder: Path | Literal["embedded"],
    config: TokenizerConfig,
    device: torch.device | str,
    runtime: TokenizerRuntime = "native",
) -> VideoTokenizer:
    """Load the tokenizer of a folder with encoder.jit, decoder.jit and mean_std.pt, or make the embedded one.

    Args:
        folder: folder, or the word "embedded".
        config: chunk, type and batch size.
        device: where to compute.
        runtime: our network with the weights of the files, or the programs in them; the embedded one has none.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    if str(folder) == EMBEDDED:
        return EmbeddedTokenizer(config, torch.device(device))
    return FileTokenizer(Path(folder), config, torch.device(device), runtime)
