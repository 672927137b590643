"""Windows as pixels, decoded in threads while the caller computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from cosmos_worker.config import Fit
from cosmos_worker.data.index import DatasetIndex, Window
from cosmos_worker.data.video import read_window
from cosmos_worker.options import VideoConfig

DECODE_BYTES = 1 << 30
"""Most memory of a process for pixels that wait to be encoded."""


def num_ahead(video: VideoConfig, batch_size: int, cpus: int) -> int:
    """Batches that are decoded while one is encoded: one a CPU, as far as DECODE_BYTES go."""
    window_bytes = 3 * video.num_pixel_frames * video.height * video.width
    return max(1, min(cpus, DECODE_BYTES // (batch_size * window_bytes)))


def decode_ahead(
    index: DatasetIndex,
    batches: Sequence[Sequence[Window]],
    video: VideoConfig,
    cpus: int,
    fit: Fit = "stretch",
) -> Iterator[tuple[Sequence[Window], Tensor]]:
    """Batches with their pixels, uint8 (B, T, H, W, 3), decoded in threads while the caller computes."""
    ahead = num_ahead(video, max((len(batch) for batch in batches), default=1), cpus)
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="decode")
    pending: deque[tuple[Sequence[Window], Future[Tensor]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, pool.submit(read_batch, index, batch, video, fit)))
            if len(pending) > ahead:
                ready, pixels = pending.popleft()
                yield ready, pixels.result()
        while pending:
            ready, pixels = pending.popleft()
            yield ready, pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_batch(
    index: DatasetIndex, batch: Sequence[Window], video: VideoConfig, fit: Fit = "stretch"
) -> Tensor:
    """Pixels of windows, uint8 (B, T, H, W, 3); overlapping neighbours of one clip are decoded once.

    Raises:
        DataError: a clip that cannot be read.
    """
    length = video.num_pixel_frames
    pixels = np.empty((len(batch), length, video.height, video.width, 3), dtype=np.uint8)
    for first, last in _overlapping_runs(batch, length):
        start, end = batch[first].start, batch[last].start + length
        path = index.video_path(index.clip(batch[first].clip_id))
        frames = read_window(path, start, end - start, video.height, video.width, fit)
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
