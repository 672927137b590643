"""The interface of video tokenizers, pixels in [-1, 1] to normalised latents and back, and its chunks of frames.

This file knows shapes and the rule of chunks, and no particular tokenizer.
Legend: B videos, C channels, T frames, H rows, W columns; pixels or latents by context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from cosmos_worker.config.network import LATENT_SCALE
from cosmos_worker.errors import ConfigError, DataError


class VideoTokenizer(Protocol):
    """A causal tokenizer that compresses 8-fold in time, rows and columns; the first frame is a latent frame alone."""

    @property
    def latent_channels(self) -> int:
        """Channels C of a latent."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides the latents, 64 hex digits."""

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Encode pixels to normalised latents (not multiplied by sigma_data), float32, on the tokenizer's device.

        Args:
            video_BCTHW: pixels (B, 3, T, H, W), floating point in [-1, 1]; H and W multiples of 8, T either 8n+1
                and at most one chunk, or a multiple of the chunk, whose chunks are then independent.

        Raises:
            DataError: another shape or type.
        """

    def decode(self, latent_BCTHW: Tensor) -> Tensor:
        """Decode normalised latents (B, C, T, H, W) to pixels (B, 3, T, H, W), float32, about [-1, 1], not clamped."""

    def move(self, device: torch.device) -> None:
        """Move the weights to a device and compute there; their types stay those of the device at construction."""


# --- pixels ----------------------------------------------------------------------------------


def video_from_pixels(pixels_BTHWC: Tensor) -> Tensor:
    """uint8 frames (B, T, H, W, 3) to float32 (B, 3, T, H, W) in [-1, 1]: x / 127.5 - 1."""
    return pixels_BTHWC.permute(0, 4, 1, 2, 3).to(torch.float32).div_(127.5).sub_(1.0).contiguous()


def pixels_from_video(video_BCTHW: Tensor) -> Tensor:
    """Float (B, 3, T, H, W) in [-1, 1] to uint8 frames (B, T, H, W, 3), clamped and rounded."""
    scaled = (video_BCTHW.float().clamp(-1.0, 1.0) + 1.0) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


# --- shapes ----------------------------------------------------------------------------------


def check_chunk(chunk_pixel_frames: int) -> None:
    """Raise ConfigError unless a chunk has 8n+1 frames."""
    problem = _frames_problem(chunk_pixel_frames, chunk_pixel_frames)
    if problem:
        raise ConfigError(f"tokenizer.chunk_pixel_frames: {problem.removeprefix('T=')}")


def latent_frames(num_pixel_frames: int) -> int:
    """Latent frames of 8n+1 pixel frames."""
    return 1 + (num_pixel_frames - 1) // LATENT_SCALE


def chunked_latent_frames(num_pixel_frames: int, chunk_pixel_frames: int) -> int:
    """Latent frames of a video that is at most one chunk, or a multiple of it."""
    if num_pixel_frames <= chunk_pixel_frames:
        return latent_frames(num_pixel_frames)
    return num_pixel_frames // chunk_pixel_frames * latent_frames(chunk_pixel_frames)


def pixel_frames(num_latent_frames: int) -> int:
    """Pixel frames of one chunk of latent frames."""
    return 1 + (num_latent_frames - 1) * LATENT_SCALE


def check_video(video_BCTHW: Tensor, chunk_pixel_frames: int) -> None:
    """Check the argument of ``encode``.

    Raises:
        DataError: with every problem and the nearest allowed values.
    """
    if video_BCTHW.ndim != 5 or video_BCTHW.shape[1] != 3 or not video_BCTHW.is_floating_point():
        raise DataError(
            f"tokenizer.encode: got {video_BCTHW.dtype} {tuple(video_BCTHW.shape)}; "
            "give floating point (B, 3, T, H, W) in [-1, 1]"
        )
    frames, height, width = video_BCTHW.shape[2:]
    problems = [_frames_problem(frames, chunk_pixel_frames)]
    problems += [_size_problem(name, size) for name, size in (("H", height), ("W", width))]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise DataError(f"tokenizer.encode: {found}")


def _frames_problem(frames: int, chunk: int) -> str:
    """The reason why this many frames cannot be encoded; empty if they can."""
    if frames > chunk:
        below = frames - frames % chunk
        rule, above = f"a multiple of the chunk {chunk}", below + chunk
    else:
        below = max(1, frames - (frames - 1) % LATENT_SCALE)
        rule, above = "8n+1 frames", below + LATENT_SCALE
    return "" if frames == below else f"T={frames}: use {rule}: {below} or {above}"


def _size_problem(name: str, size: int) -> str:
    """The reason why this height or width cannot be encoded; empty if it can."""
    below = max(LATENT_SCALE, size - size % LATENT_SCALE)
    if size == below:
        return ""
    return f"{name}={size}: use a multiple of {LATENT_SCALE}: {below} or {below + LATENT_SCALE}"


def check_latent(latent_BCTHW: Tensor, channels: int, chunk_pixel_frames: int) -> None:
    """Check the argument of ``decode``.

    Raises:
        DataError: with the nearest allowed values.
    """
    if latent_BCTHW.ndim != 5 or latent_BCTHW.shape[1] != channels or 0 in latent_BCTHW.shape:
        raise DataError(
            f"tokenizer.decode: got shape {tuple(latent_BCTHW.shape)}; give (B, {channels}, T, H, W)"
        )
    frames, chunk = latent_BCTHW.shape[2], latent_frames(chunk_pixel_frames)
    if frames > chunk and frames % chunk:
        below = frames - frames % chunk
        raise DataError(
            f"tokenizer.decode: T={frames}: use a multiple of the latent chunk {chunk}: "
            f"{below} or {below + chunk}"
        )


# --- chunks ----------------------------------------------------------------------------------


def map_chunks(
    function: Callable[[Tensor], Tensor], x_BCTHW: Tensor, chunk_frames: int, batch_size: int
) -> Tensor:
    """Apply a function to independent chunks of frames, at most batch_size of them per call.

    Args:
        function: (N, C, t, H, W) to (N, C', t', H', W').
        x_BCTHW: T at most chunk_frames (one chunk), or a multiple of it.
        chunk_frames: frames t of a full chunk.
        batch_size: most chunks per call.

    Returns:
        (B, C', chunks * t', H', W').

    Source: cosmos_predict1 video tokenizer: chunks go along the batch, no overlap and no blending.
    """
    num_videos, _, frames = x_BCTHW.shape[:3]
    num_chunks = max(1, frames // chunk_frames)
    chunks_NCTHW = x_BCTHW.unflatten(2, (num_chunks, -1)).transpose(1, 2).flatten(0, 1)
    results = [function(part) for part in chunks_NCTHW.split(batch_size)]
    whole = torch.cat(results) if len(results) > 1 else results[0]
    return whole.unflatten(0, (num_videos, num_chunks)).transpose(1, 2).flatten(2, 3)
