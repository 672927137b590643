"""cache-latents: every training and validation window through the tokenizer, once.

The test split is left out: it is sampled from its video files. Several processes divide the work without
communication: the windows are cut into shards, process r of w makes the shards r, r + w, r + 2w .., and process 0 waits
until all are in the folder. The files are the same for any number of processes. With buckets a shard contains windows
of one bucket, and the shards of the first bucket come first.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.config.network import LATENT_SCALE, TokenizerConfig, VideoConfig
from cosmos_worker.config.stages import CacheLatentsConfig
from cosmos_worker.data.buckets import bucket_sizes, group_windows
from cosmos_worker.data.index import DatasetIndex, Window, read_index
from cosmos_worker.data.windows import decode_ahead, own_means
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.runtime.progress import Progress
from cosmos_worker.storage.volumes import (
    VIDEO_READER_VERSION,
    Volumes,
    content_key,
)
from cosmos_worker.tokenizer import tokenizer as base
from cosmos_worker.tokenizer.latents import (
    WINDOWS_PER_SHARD,
    LatentStore,
    LatentWriter,
    count_shards,
)
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
SHARD_BYTES = 256 << 20
MIN_SHARDS = 32
"""Least number of shards of a cache, so that up to 32 processes can share a small one."""
PATIENCE_S = 3600.0
POLL_S = 1.0
LOG_INTERVAL_S = 30.0
KIB, MIB = 1 << 10, 1 << 20


def run(config: CacheLatentsConfig, volumes: Volumes) -> dict[str, Any]:
    """Encode this process's share of what the target folder lacks.

    Returns:
        windows: of the whole cache; encoded: by this process; reused: those that were there when it began;
        shape: (C, T, H, W) of a latent, or shapes: those of each bucket; dtype; bytes: of all latents; seconds: of
        this process; digest: of the store, from process 0, which ends last.

    Raises:
        DataError: no index, no windows, an unreadable clip, a NaN latent, or a folder with other latents.
        CheckpointError: the tokenizer's folder is wrong.
        RetryableError: not enough free disk, or the other processes make no progress.
    """
    processes = ProcessGroup.from_environment(os.environ)
    index = read_index(volumes.resolve(config.dataset_uri))
    windows = [window for split in SPLITS for window in index.windows(split)]
    if not windows:
        raise DataError(
            f"{config.dataset_uri}: no windows in the splits {' and '.join(SPLITS)}; "
            "see report.md of prepare-dataset for what was dropped"
        )
    tokenizer = _tokenizer(config, volumes, processes)
    target = volumes.resolve(config.target_uri)
    parts = cut_parts(config, windows, tokenizer.latent_channels)
    started = time.monotonic()
    with LatentWriter(
        target,
        fingerprint(config, index, parts, tokenizer.digest),
        rank=processes.rank,
        world_size=processes.world_size,
    ) as writer:
        reused = sum(window.window_id in writer.done for window in windows)
        announce(target, parts, writer.done)
        encoded = _encode(index, parts, tokenizer, config, writer, processes)
    shapes = {part.name: list(part.shape) for part in parts}
    result: dict[str, Any] = {
        "windows": len(windows),
        "encoded": encoded,
        "reused": reused,
        **({"shapes": shapes} if config.buckets else {"shape": shapes[None]}),
        "dtype": config.tokenizer.dtype,
        "bytes": sum(part.num_bytes for part in parts),
    }
    if processes.is_main:
        result["digest"] = wait_for_all(target, windows).digest
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def _tokenizer(
    config: CacheLatentsConfig, volumes: Volumes, processes: ProcessGroup
) -> base.VideoTokenizer:
    device = _device(processes)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for constants of the scripts that name no device index
    if config.tokenizer_uri == EMBEDDED:
        return load_tokenizer(EMBEDDED, config.tokenizer, device)
    folder = volumes.resolve(config.tokenizer_uri)
    return load_tokenizer(folder, config.tokenizer, device, config.tokenizer_runtime)


def _device(processes: ProcessGroup) -> torch.device:
    if torch.cuda.is_available():
        return torch.device(f"cuda:{processes.local_rank}")
    return torch.device("cpu")


def _encode(
    index: DatasetIndex,
    parts: Sequence[Part],
    tokenizer: base.VideoTokenizer,
    config: CacheLatentsConfig,
    writer: LatentWriter,
    processes: ProcessGroup,
) -> int:
    """Encode this process's missing windows, part after part, and hand them to the writer; returns their number."""
    size, dtype = config.tokenizer.batch_size, getattr(torch, config.tokenizer.dtype)
    todo = [
        [window for window in part.own_windows(processes) if window.window_id not in writer.done]
        for part in parts
    ]
    num_windows = sum(map(len, todo))
    progress = Progress("cache-latents", num_windows, "windows", is_watched=True)
    device = _device(processes)
    means = own_means(processes.local_world_size, pins=device.type == "cuda")
    with closing(progress):
        for part, windows in zip(parts, todo, strict=True):
            writer.begin_shards(part.per_shard)
            batches = [windows[start : start + size] for start in range(0, len(windows), size)]
            pixels = decode_ahead(index, batches, part.video, means, config.fit)
            for batch, pixels_BTHWC in pixels:
                # as uint8: a quarter of the bytes
                on_device = pixels_BTHWC.to(device, non_blocking=True)
                latents_BCTHW = tokenizer.encode(base.video_from_pixels(on_device)).to(dtype).cpu()
                for window, latent_CTHW in zip(batch, latents_BCTHW, strict=True):
                    writer.add(window.window_id, latent_CTHW)
                progress.advance(len(batch))
    return num_windows


# --- sizes and identity ----------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The windows of one size, and their cut into shards."""

    name: str | None
    """Name of the bucket; None without buckets."""
    video: VideoConfig
    windows: Sequence[Window]
    shape: tuple[int, int, int, int]
    """(C, T, H, W) of a latent."""
    window_bytes: int
    per_shard: int
    """Windows of a full shard."""
    first_shard: int
    """Number of this part's first shard among the shards of all parts."""

    @property
    def num_shards(self) -> int:
        """Number of shards of this part."""
        return -(-len(self.windows) // self.per_shard)

    @property
    def num_bytes(self) -> int:
        """Bytes of all latents of this part."""
        return len(self.windows) * self.window_bytes

    def own_windows(self, processes: ProcessGroup) -> list[Window]:
        """The windows that fall to this process."""
        return own_windows(self.windows, self.per_shard, processes, self.first_shard)


def cut_parts(config: CacheLatentsConfig, windows: Sequence[Window], channels: int) -> list[Part]:
    """Group the windows by bucket, and number the shards of each group.

    Raises:
        DataError: the index was made with other buckets.
    """
    sizes = bucket_sizes(config.video, config.buckets)
    itemsize = getattr(torch, config.tokenizer.dtype).itemsize
    parts: list[Part] = []
    num_shards = 0
    for name, own in group_windows(windows, sizes, config.dataset_uri).items():
        shape = latent_shape(sizes[name], config.tokenizer, channels)
        window_bytes = math.prod(shape) * itemsize
        per_shard = windows_per_shard(window_bytes, config.tokenizer.batch_size, len(own))
        parts.append(Part(name, sizes[name], own, shape, window_bytes, per_shard, num_shards))
        num_shards += parts[-1].num_shards
    return parts


def latent_shape(
    video: VideoConfig, tokenizer: TokenizerConfig, channels: int
) -> tuple[int, int, int, int]:
    """(C, T, H, W) of a window's latent; windows longer than a chunk are several independent chunks."""
    frames = base.chunked_latent_frames(video.num_pixel_frames, tokenizer.chunk_pixel_frames)
    return channels, frames, video.height // LATENT_SCALE, video.width // LATENT_SCALE


def windows_per_shard(window_bytes: int, batch_size: int, num_windows: int) -> int:
    """Windows of a full shard: a multiple of the batch, so that a resumed run cuts the same batches.

    At most WINDOWS_PER_SHARD and SHARD_BYTES, and so few that there are MIN_SHARDS for the processes to share.
    """
    wanted = min(
        WINDOWS_PER_SHARD, SHARD_BYTES // max(1, window_bytes), -(-num_windows // MIN_SHARDS)
    )
    return max(batch_size, wanted - wanted % batch_size)


def own_windows(
    windows: Sequence[Window], per_shard: int, processes: ProcessGroup, first_shard: int = 0
) -> list[Window]:
    """The windows that fall to this process: those of every ``world_size``-th shard, in order.

    Args:
        windows: of a part.
        per_shard: windows of a full shard.
        processes: this process among all that fill the cache.
        first_shard: shards of the parts before, which are counted as well.
    """
    step = per_shard * processes.world_size
    first = per_shard * ((processes.rank - first_shard) % processes.world_size)
    return [
        window
        for start in range(first, len(windows), step)
        for window in windows[start : start + per_shard]
    ]


def fingerprint(
    config: CacheLatentsConfig, index: DatasetIndex, parts: Sequence[Part], tokenizer: str
) -> str:
    """Digest of what decides the latents: video reader, tokenizer, clips, frames, sizes, fit, chunk, type."""
    clips = hashlib.sha256()
    for part in parts:
        clips.update(f"bucket {part.name}\n".encode() if part.name else b"")
        for window in part.windows:
            clip = index.clip(window.clip_id)
            frames = clip.frames_in_file(window.start, part.video.num_pixel_frames)
            clips.update(f"{window.window_id} {clip.video_sha256} {frames}\n".encode())
    sizes = [[v.num_pixel_frames, v.height, v.width] for v in (part.video for part in parts)]
    return content_key(
        {
            "video_reader": VIDEO_READER_VERSION,
            "tokenizer": tokenizer,
            "windows": clips.hexdigest(),
            "pixels": sizes if config.buckets else sizes[0],
            "chunk": config.tokenizer.chunk_pixel_frames,
            "dtype": config.tokenizer.dtype,
            **({} if config.fit == "stretch" else {"fit": config.fit}),
        }
    )


def announce(folder: Path, parts: Sequence[Part], done: Collection[str]) -> None:
    """Log the size of the cache for each bucket, and check that the disk has room for it and 1 % more.

    Args:
        folder: of the cache.
        parts: its windows.
        done: ids of the windows that are cached already.

    Raises:
        RetryableError: the disk is too full.
    """
    free, all_missing, all_needed = shutil.disk_usage(folder).free, 0, 0
    for part in parts:
        num_missing = sum(window.window_id not in done for window in part.windows)
        needed = int(num_missing * part.window_bytes * 1.01)
        all_missing, all_needed = all_missing + num_missing, all_needed + needed
        logger.info(
            "latent cache %swindows=%d reused=%d to_encode=%d kib_per_window=%.1f shards=%d mib=%.1f "
            "mib_to_write=%.1f mib_free=%.1f folder=%s",
            f"bucket={part.name} " if part.name else "", len(part.windows),
            len(part.windows) - num_missing, num_missing, part.window_bytes / KIB, part.num_shards,
            part.num_bytes / MIB, needed / MIB, free / MIB, folder,
        )  # fmt: skip
    if free < all_needed:
        sizes = " or ".join(str(part.window_bytes) for part in parts)
        raise RetryableError(
            f"{folder}: {all_missing} latents of {sizes} bytes need {all_needed / MIB:.1f} MiB, "
            f"{free / MIB:.1f} MiB are free; free space, enlarge the volume, or take fewer windows with a larger "
            "window_stride"
        )


def wait_for_all(folder: Path, windows: Sequence[Window]) -> LatentStore:
    """Wait until the other processes have written their shards, then open the store.

    Raises:
        DataError: a shard that is damaged or has another fingerprint.
        RetryableError: no new shard in PATIENCE_S.
    """
    store, last_news = LatentStore(folder), time.monotonic()
    last_log = last_news
    while missing := [window for window in windows if window.window_id not in store]:
        now = time.monotonic()
        if now - last_news > PATIENCE_S:
            raise RetryableError(
                f"{folder}: {len(missing)} of {len(windows)} windows are missing, such as {missing[0].window_id}, and "
                f"the other processes have written nothing for {PATIENCE_S:.0f} s; start them again"
            )
        if now - last_log > LOG_INTERVAL_S:
            last_log = now
            logger.info("waiting windows=%d/%d", len(windows) - len(missing), len(windows))
        time.sleep(POLL_S)
        if count_shards(folder) != store.num_shards:
            store, last_news = LatentStore(folder), time.monotonic()
    return store
