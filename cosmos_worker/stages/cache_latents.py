"""cache-latents: every training and validation window through the tokenizer, once.

The test split is held out: it is sampled from its files.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cosmos_worker.config import CacheLatentsConfig
from cosmos_worker.data.index import DatasetIndex, Window, read_index
from cosmos_worker.data.video import read_window
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.layout import Volumes, content_key
from cosmos_worker.options import LATENT_SCALE, VideoConfig
from cosmos_worker.progress import Progress
from cosmos_worker.tokenizer import base
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.store import WINDOWS_PER_SHARD, LatentStore, LatentWriter

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
SHARD_BYTES = 256 << 20
DECODE_AHEAD = 2
"""Batches that are decoded while one is encoded."""
MIB = 1 << 20


def run(config: CacheLatentsConfig, volumes: Volumes) -> dict[str, Any]:
    """Encode what the target folder lacks.

    Returns:
        windows, encoded, reused: counts; shape: (C, T, H, W) of a latent; dtype; bytes: of all latents;
        seconds: of encoding; digest: of the store.

    Raises:
        DataError: no index, no windows, an unreadable clip, a NaN latent, or a folder with other latents.
        CheckpointError: the tokenizer's folder is wrong.
        RetryableError: not enough free disk.
    """
    index = read_index(volumes.resolve(config.dataset_uri))
    windows = [window for split in SPLITS for window in index.windows(split)]
    if not windows:
        raise DataError(
            f"{config.dataset_uri}: no windows in the splits {' and '.join(SPLITS)}; "
            "see report.md of prepare-dataset for what was dropped"
        )
    tokenizer = _tokenizer(config, volumes)
    target = volumes.resolve(config.target_uri)
    shape = latent_shape(config, tokenizer.latent_channels)
    window_bytes = math.prod(shape) * getattr(torch, config.tokenizer.dtype).itemsize
    per_shard = windows_per_shard(window_bytes, config.tokenizer.batch_size)
    started = time.monotonic()
    with LatentWriter(
        target, fingerprint(config, index, windows, tokenizer.digest), per_shard
    ) as writer:
        todo = [window for window in windows if window.window_id not in writer.done]
        logger.info(
            "windows=%d reused=%d to_encode=%d shape=%s mib=%.1f",
            len(windows), len(windows) - len(todo), len(todo), shape,
            len(todo) * window_bytes / MIB,
        )  # fmt: skip
        check_disk(target, len(todo), window_bytes)
        _encode(index, todo, tokenizer, config, writer)
    return {
        "windows": len(windows),
        "encoded": len(todo),
        "reused": len(windows) - len(todo),
        "shape": list(shape),
        "dtype": config.tokenizer.dtype,
        "bytes": len(windows) * window_bytes,
        "seconds": round(time.monotonic() - started, 3),
        "digest": LatentStore(target).digest,
    }


def _tokenizer(config: CacheLatentsConfig, volumes: Volumes) -> base.VideoTokenizer:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config.tokenizer_uri == EMBEDDED:
        return load_tokenizer(EMBEDDED, config.tokenizer, device)
    return load_tokenizer(volumes.resolve(config.tokenizer_uri), config.tokenizer, device)


def _encode(
    index: DatasetIndex,
    windows: Sequence[Window],
    tokenizer: base.VideoTokenizer,
    config: CacheLatentsConfig,
    writer: LatentWriter,
) -> None:
    """Encode windows in batches and hand them to the writer, in order."""
    size, dtype = config.tokenizer.batch_size, getattr(torch, config.tokenizer.dtype)
    batches = [windows[start : start + size] for start in range(0, len(windows), size)]
    progress = Progress("cache-latents", len(windows), "windows")
    for batch, pixels_BTHWC in decode_ahead(index, batches, config.video):
        latents_BCTHW = tokenizer.encode(base.video_from_pixels(pixels_BTHWC)).to(dtype).cpu()
        for window, latent_CTHW in zip(batch, latents_BCTHW, strict=True):
            writer.add(window.window_id, latent_CTHW)
        progress.advance(len(batch))
    progress.close()


# --- sizes and identity ----------------------------------------------------------------------


def latent_shape(config: CacheLatentsConfig, channels: int) -> tuple[int, int, int, int]:
    """(C, T, H, W) of a window's latent; windows longer than a chunk are several independent chunks."""
    video, chunk = config.video, config.tokenizer.chunk_pixel_frames
    per_chunk = base.latent_frames(min(chunk, video.num_pixel_frames))
    num_chunks = max(1, video.num_pixel_frames // chunk)
    rows, columns = video.height // LATENT_SCALE, video.width // LATENT_SCALE
    return channels, num_chunks * per_chunk, rows, columns


def windows_per_shard(window_bytes: int, batch_size: int) -> int:
    """Windows of a full shard: a multiple of the batch, so that a resumed run cuts the same batches."""
    wanted = min(WINDOWS_PER_SHARD, SHARD_BYTES // max(1, window_bytes))
    return max(batch_size, wanted - wanted % batch_size)


def fingerprint(
    config: CacheLatentsConfig, index: DatasetIndex, windows: Sequence[Window], tokenizer: str
) -> str:
    """Key of everything that decides the latents: tokenizer, clips, windows, size, chunk, type."""
    clips = hashlib.sha256()
    for window in windows:
        clips.update(f"{window.window_id} {index.clip(window.clip_id).video_sha256}\n".encode())
    size = config.video
    return content_key(
        {
            "tokenizer": tokenizer,
            "windows": clips.hexdigest(),
            "pixels": [size.num_pixel_frames, size.height, size.width],
            "chunk": config.tokenizer.chunk_pixel_frames,
            "dtype": config.tokenizer.dtype,
        }
    )


def check_disk(folder: Path, num_windows: int, window_bytes: int) -> None:
    """Raise RetryableError unless the folder's disk has room for the latents and 1 % more."""
    needed, free = int(num_windows * window_bytes * 1.01), shutil.disk_usage(folder).free
    if free < needed:
        raise RetryableError(
            f"{folder}: {num_windows} latents of {window_bytes} bytes need {needed / MIB:.1f} MiB, "
            f"{free / MIB:.1f} MiB are free; free space or enlarge the volume, then run again"
        )


# --- decoding --------------------------------------------------------------------------------


def decode_ahead(
    index: DatasetIndex, batches: Sequence[Sequence[Window]], video: VideoConfig
) -> Iterator[tuple[Sequence[Window], Tensor]]:
    """Batches with their pixels, uint8 (B, T, H, W, 3), decoded in threads while the caller computes."""
    threads = max(1, min(DECODE_AHEAD, (os.cpu_count() or 1) - 1))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    pending: deque[tuple[Sequence[Window], Future[Tensor]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, pool.submit(read_batch, index, batch, video)))
            if len(pending) > DECODE_AHEAD:
                ready, pixels = pending.popleft()
                yield ready, pixels.result()
        while pending:
            ready, pixels = pending.popleft()
            yield ready, pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_batch(index: DatasetIndex, batch: Sequence[Window], video: VideoConfig) -> Tensor:
    """Pixels of windows, uint8 (B, T, H, W, 3); overlapping neighbours of one clip are decoded once.

    Raises:
        DataError: a clip that cannot be read.
    """
    length = video.num_pixel_frames
    pixels = np.empty((len(batch), length, video.height, video.width, 3), dtype=np.uint8)
    for first, last in _overlapping_runs(batch, length):
        start, end = batch[first].start, batch[last].start + length
        path = index.video_path(index.clip(batch[first].clip_id))
        frames = read_window(path, start, end - start, video.height, video.width)
        for number in range(first, last + 1):
            offset = batch[number].start - start
            pixels[number] = frames[offset : offset + length]
    return torch.from_numpy(pixels)


def _overlapping_runs(batch: Sequence[Window], length: int) -> Iterator[tuple[int, int]]:
    """(first, last) positions of neighbours that are of one clip and overlap."""
    first = 0
    for number in range(1, len(batch) + 1):
        if number < len(batch):
            before, window = batch[number - 1], batch[number]
            gap = window.start - before.start
            if window.clip_id == before.clip_id and 0 <= gap < length:
                continue
        yield first, number - 1
        first = number
