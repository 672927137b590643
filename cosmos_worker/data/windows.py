"""Decode windows to pixels in threads, while the caller encodes earlier ones."""

from __future__ import annotations

import queue
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.index import Clip, DatasetIndex, Window
from cosmos_worker.data.video.decoding import Frames
from cosmos_worker.data.video.entry_points import numbered_frames
from cosmos_worker.data.video.files import (
    frame_outside,
    picture_of,
)
from cosmos_worker.data.video.fit import resize_frames
from cosmos_worker.runtime.cgroup import available_cpus, available_memory

DECODE_SHARE = 0.1
"""Share of the memory for pixels that wait to be encoded, of all processes of a node together."""
LONGEST_RUN = 8
"""Windows' lengths after which a run may end although its frames go on: the threads then share a long clip, and decode
an eighth of it twice."""
POLL_S = 0.1
"""Seconds after which a waiting thread looks whether the caller still takes windows."""


@dataclass(frozen=True)
class Means:
    """Threads and memory that a process may use to decode ahead.

    Attributes:
        cpus: threads that decode.
        num_bytes: most memory for pixels that wait, about.
        pins: the pixels of a batch lie in page-locked memory, from which a GPU copies while it computes.
    """

    cpus: int
    num_bytes: int
    pins: bool = False


def own_means(num_processes: int, pins: bool = False) -> Means:
    """The share of this process, one of several of its node, in the CPUs and the memory of the container."""
    num_bytes = int(available_memory() * DECODE_SHARE) // num_processes
    return Means(max(1, available_cpus() // num_processes), num_bytes, pins)


def num_ahead(video: VideoConfig, batch_size: int, means: Means) -> int:
    """Batches that are decoded while one is encoded: one a CPU, as far as the memory goes."""
    window_bytes = 3 * video.num_pixel_frames * video.height * video.width
    return max(1, min(means.cpus, means.num_bytes // (batch_size * window_bytes)))


def decode_ahead(
    index: DatasetIndex,
    batches: Sequence[Sequence[Window]],
    video: VideoConfig,
    means: Means,
    fit: Fit = "stretch",
) -> Iterator[tuple[Sequence[Window], Tensor]]:
    """Batches with their pixels, uint8 (B, T, H, W, 3), decoded in threads while the caller encodes earlier ones.

    A frame is decoded and resized once for all windows that follow each other, however they are batched, but for a few
    where a long clip is cut for the threads.

    Raises:
        DataError: a clip that cannot be read.
        OSError: the volume does not give its content.
    """
    batch_size = max((len(batch) for batch in batches), default=1)
    budget = num_ahead(video, batch_size, means) * batch_size
    length = video.num_pixel_frames
    runs = list(cut_runs(index, [window for batch in batches for window in batch], length))
    with closing(_decode_runs(index, runs, video, fit, means.cpus, budget)) as windows:
        for batch in batches:
            size = (len(batch), length, video.height, video.width, 3)
            pixels = torch.empty(size, dtype=torch.uint8, pin_memory=means.pins)
            for one in pixels.numpy():
                one[:] = next(windows)
            yield batch, pixels


# --- runs of windows that are decoded in one go ------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Windows of one clip, ascending, whose frames are decoded from one place on."""

    clip: Clip
    windows: list[Window]


def cut_runs(index: DatasetIndex, windows: Sequence[Window], length: int) -> Iterator[Run]:
    """The windows, each of ``length`` frames, as runs, in their order."""
    run: Run | None = None
    for window in windows:
        if run is None or not _continues_run(run, window, length):
            if run is not None:
                yield run
            run = Run(index.clip(window.clip_id), [])
        run.windows.append(window)
    if run is not None:
        yield run


def _continues_run(run: Run, window: Window, length: int) -> bool:
    """True if decoding goes on to this window: it needs frames that are there, or could not begin nearer to it."""
    clip, before = run.clip, run.windows[-1]
    if window.clip_id != before.clip_id or window.start < before.start:
        return False
    begin = clip.frames_in_file(run.windows[0].start, 1)[0]
    first = clip.frames_in_file(window.start, 1)[0]
    if _entry(clip, first) == _entry(clip, begin):
        return True
    last = clip.frames_in_file(before.start, length)[-1]
    if first > last:
        return _entry(clip, first) == _entry(clip, last + 1)
    return first - begin < LONGEST_RUN * (last - clip.frames_in_file(before.start, 1)[0] + 1)


def _entry(clip: Clip, frame: int) -> int:
    """Number of entry points up to a frame of the file."""
    return bisect_right(clip.entry_points, frame, key=lambda entry: entry[0])


def read_run(
    path: Path, run: Run, video: VideoConfig, fit: Fit = "stretch"
) -> Generator[Frames, None, None]:
    """Pixels of a run's windows one after another, uint8 (T, H, W, 3); memory holds the frames of one window.

    Frames that no window takes, as where frames are sampled at a lower rate, are decoded, but not converted or kept.

    Raises:
        DataError: the file is not as the index says.
        OSError: the volume does not give its content.
    """
    clip, length = run.clip, video.num_pixel_frames
    taken = {one for window in run.windows for one in clip.frames_in_file(window.start, length)}
    pictures: dict[int, Frames] = {}
    number = -1
    first = clip.frames_in_file(run.windows[0].start, 1)[0]
    with closing(numbered_frames(path, first, clip.entry_points)) as frames:
        for window in run.windows:
            wanted = clip.frames_in_file(window.start, length)
            for passed in [one for one in pictures if one < wanted[0]]:
                del pictures[passed]
            while number < wanted[-1]:
                shown = next(frames, None)
                if shown is None:
                    raise frame_outside(path, wanted[-1], number + 1)
                number = shown.number
                if number in taken:
                    picture = picture_of(path, shown, clip.height, clip.width)
                    picture = resize_frames(picture[None], video.height, video.width, fit)[0]
                    pictures[number] = picture
            yield np.stack([pictures[one] for one in wanted])


# --- threads ---------------------------------------------------------------------------------


class _Pending:
    """A run that a thread decodes, some windows ahead of the caller that takes them."""

    def __init__(self, num_windows: int, stopped: threading.Event) -> None:
        self._ready: queue.Queue[Frames | Exception] = queue.Queue(num_windows)
        self._stopped = stopped

    def decode(self, path: Path, run: Run, video: VideoConfig, fit: Fit) -> None:
        """Decode the windows into the queue; an error is put there as well."""
        try:
            with closing(read_run(path, run, video, fit)) as windows:
                for window in windows:
                    if not self._put(window):
                        return
        except Exception as error:  # raised again where the window is taken
            self._put(error)

    def _put(self, item: Frames | Exception) -> bool:
        """Wait for room in the queue; False if the caller has stopped taking windows."""
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def take(self) -> Frames:
        """The next window."""
        item = self._ready.get()
        if isinstance(item, Exception):
            raise item
        return item


def _decode_runs(
    index: DatasetIndex,
    runs: Sequence[Run],
    video: VideoConfig,
    fit: Fit,
    cpus: int,
    budget: int,
) -> Generator[Frames, None, None]:
    """The windows of all runs in their order; about ``budget`` of them wait in memory."""
    at_once = max(1, min(2 * cpus, budget // 2))
    per_run = max(1, budget // at_once - 1)
    pool = ThreadPoolExecutor(min(cpus, at_once), thread_name_prefix="decode")
    stopped = threading.Event()
    pending: deque[tuple[Run, _Pending]] = deque()
    waiting = iter(runs)

    def begin_next() -> None:
        run = next(waiting, None)
        if run is not None:
            pending.append((run, _Pending(per_run, stopped)))
            pool.submit(pending[-1][1].decode, index.video_path(run.clip), run, video, fit)

    try:
        for _ in range(at_once):
            begin_next()
        while pending:
            run, decoded = pending[0]
            for _ in run.windows:
                yield decoded.take()
            pending.popleft()
            begin_next()
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
