"""cache-latents: every training and validation window through the tokenizer, once.

The test split is held out: it is sampled from its files. Several processes (RANK of WORLD_SIZE) share the work
without talking to each other: the windows are cut into shards, process r of w makes the shards r, r + w, r + 2w ..,
and process 0 waits until all are in the folder. However many there are, the files are the same.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.cgroup import available_cpus
from cosmos_worker.config import CacheLatentsConfig
from cosmos_worker.data.ahead import decode_ahead
from cosmos_worker.data.index import DatasetIndex, Window, read_index
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.layout import Volumes, content_key
from cosmos_worker.options import LATENT_SCALE
from cosmos_worker.progress import Progress
from cosmos_worker.tokenizer import base
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.store import (
    WINDOWS_PER_SHARD,
    LatentStore,
    LatentWriter,
    count_shards,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
SHARD_BYTES = 256 << 20
MIN_SHARDS = 32
"""A small cache is cut into so many shards, for up to as many processes to share."""
PATIENCE_S = 3600.0
POLL_S = 1.0
LOG_INTERVAL_S = 30.0
KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Place:
    """This process among those that fill the cache, as torchrun says."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Number among the processes of this machine: that of its GPU."""
    local_world_size: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        """Read RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE; without them there is one process."""
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        return cls(*(int(environment.get(name, default)) for name, default in names.items()))


def run(config: CacheLatentsConfig, volumes: Volumes) -> dict[str, Any]:
    """Encode this process's share of what the target folder lacks.

    Returns:
        windows: of the whole cache; encoded: by this process; reused: those that were there when it began;
        shape: (C, T, H, W) of a latent; dtype; bytes: of all latents; seconds: of this process; digest: of the
        store, from process 0, which ends last.

    Raises:
        DataError: no index, no windows, an unreadable clip, a NaN latent, or a folder with other latents.
        CheckpointError: the tokenizer's folder is wrong.
        RetryableError: not enough free disk, or the other processes make no progress.
    """
    place = Place.from_environment(os.environ)
    index = read_index(volumes.resolve(config.dataset_uri))
    windows = [window for split in SPLITS for window in index.windows(split)]
    if not windows:
        raise DataError(
            f"{config.dataset_uri}: no windows in the splits {' and '.join(SPLITS)}; "
            "see report.md of prepare-dataset for what was dropped"
        )
    tokenizer = _tokenizer(config, volumes, place)
    target = volumes.resolve(config.target_uri)
    shape = latent_shape(config, tokenizer.latent_channels)
    window_bytes = math.prod(shape) * getattr(torch, config.tokenizer.dtype).itemsize
    per_shard = windows_per_shard(window_bytes, config.tokenizer.batch_size, len(windows))
    started = time.monotonic()
    with LatentWriter(
        target,
        fingerprint(config, index, windows, tokenizer.digest),
        per_shard,
        place.rank,
        place.world_size,
    ) as writer:
        reused = sum(window.window_id in writer.done for window in windows)
        announce(target, len(windows), reused, window_bytes, per_shard)
        own = share(windows, per_shard, place)
        todo = [window for window in own if window.window_id not in writer.done]
        _encode(index, todo, tokenizer, config, writer, place)
    result = {
        "windows": len(windows),
        "encoded": len(todo),
        "reused": reused,
        "shape": list(shape),
        "dtype": config.tokenizer.dtype,
        "bytes": len(windows) * window_bytes,
    }
    if place.rank == 0:
        result["digest"] = wait_for_all(target, windows).digest
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def _tokenizer(config: CacheLatentsConfig, volumes: Volumes, place: Place) -> base.VideoTokenizer:
    device = "cpu"
    if torch.cuda.is_available():
        device = f"cuda:{place.local_rank}"
        torch.cuda.set_device(device)  # for constants of the scripts that name no device index
    if config.tokenizer_uri == EMBEDDED:
        return load_tokenizer(EMBEDDED, config.tokenizer, device)
    return load_tokenizer(volumes.resolve(config.tokenizer_uri), config.tokenizer, device)


def _encode(
    index: DatasetIndex,
    windows: Sequence[Window],
    tokenizer: base.VideoTokenizer,
    config: CacheLatentsConfig,
    writer: LatentWriter,
    place: Place,
) -> None:
    """Encode windows in batches and hand them to the writer, in order."""
    size, dtype = config.tokenizer.batch_size, getattr(torch, config.tokenizer.dtype)
    batches = [windows[start : start + size] for start in range(0, len(windows), size)]
    progress = Progress("cache-latents", len(windows), "windows")
    cpus = max(1, available_cpus() // place.local_world_size)
    for batch, pixels_BTHWC in decode_ahead(index, batches, config.video, cpus):
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


def windows_per_shard(window_bytes: int, batch_size: int, num_windows: int) -> int:
    """Windows of a full shard: a multiple of the batch, so that a resumed run cuts the same batches.

    At most WINDOWS_PER_SHARD and SHARD_BYTES, and so few that there are MIN_SHARDS for the processes to share.
    """
    wanted = min(
        WINDOWS_PER_SHARD, SHARD_BYTES // max(1, window_bytes), -(-num_windows // MIN_SHARDS)
    )
    return max(batch_size, wanted - wanted % batch_size)


def share(windows: Sequence[Window], per_shard: int, place: Place) -> list[Window]:
    """The windows of a process: those of every ``world_size``-th shard, in order."""
    step = per_shard * place.world_size
    first = per_shard * place.rank
    return [
        window
        for start in range(first, len(windows), step)
        for window in windows[start : start + per_shard]
    ]


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


def announce(
    folder: Path, num_windows: int, num_reused: int, window_bytes: int, per_shard: int
) -> None:
    """Log what the cache will take, and check that the disk has room for it and 1 % more.

    Raises:
        RetryableError: it has not.
    """
    num_missing = num_windows - num_reused
    needed, free = int(num_missing * window_bytes * 1.01), shutil.disk_usage(folder).free
    logger.info(
        "latent cache windows=%d reused=%d to_encode=%d kib_per_window=%.1f shards=%d mib=%.1f mib_to_write=%.1f "
        "mib_free=%.1f folder=%s",
        num_windows, num_reused, num_missing, window_bytes / KIB, -(-num_windows // per_shard),
        num_windows * window_bytes / MIB, needed / MIB, free / MIB, folder,
    )  # fmt: skip
    if free < needed:
        raise RetryableError(
            f"{folder}: {num_missing} latents of {window_bytes} bytes need {needed / MIB:.1f} MiB, "
            f"{free / MIB:.1f} MiB are free; free space, enlarge the volume, or take fewer windows with a larger "
            "video.window_stride"
        )


def wait_for_all(folder: Path, windows: Sequence[Window]) -> LatentStore:
    """The store, once the other processes have written their shards too.

    Raises:
        DataError: a shard that is damaged or of something else.
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
