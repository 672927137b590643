"""Video files as arrays: open, read a window at the model's size, write. Knows nothing of datasets.

One reader serves checking, training, conditioning and measuring. Frames are uint8 RGB arrays (T, H, W, 3).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch

from cosmos_worker.config.choices import Fit
from cosmos_worker.data.video.decoding import Decoder, Frames
from cosmos_worker.data.video.entry_points import (
    EntryPoint,
    Shown,
    numbered_frames,
)
from cosmos_worker.data.video.fit import resize_frames
from cosmos_worker.data.video.picture import display_turn, frame_notes, refuse_other_turn
from cosmos_worker.data.video.problems import REENCODE, UnreadableVideo
from cosmos_worker.errors import DataError

logger = logging.getLogger(__name__)

CONSTANT_RATE_FACTOR = "10"
"""Quality of written H.264 files: low enough that metrics of the file are those of the frames."""
X264_WITHOUT_AVX512 = "asm=SSE2Fast,FMA3,BMI2,AVX2"
"""x264's AVX-512 code gives other bytes for the same frames from time to time (found with x264 165 in a process with
other threads: up to 95 kinds of files in 800); its AVX2 code does not, and gives what its plain C gives."""


class Extent(NamedTuple):
    """Number and rate of the frames of a file."""

    num_frames: int
    fps: float
    """On average, rounded to thousandths."""


class VideoReader:
    """A video file whose frames are found by their number in the order shown; opening decodes one frame.

    Attributes:
        height: rows as shown, in pixels.
        width: columns as shown.
    """

    def __init__(self, path: Path, entry_points: Sequence[EntryPoint] = ()) -> None:
        """Open a file.

        Args:
            path: of the file.
            entry_points: those that its check has proven; without them it is decoded from the start.

        Raises:
            DataError: the file does not decode, or holds no frame.
            OSError: the volume does not give its content.
        """
        self._path = path
        self._entry_points = entry_points
        with closing(numbered_frames(path)) as frames:
            first = next(frames, None)
            if first is None:
                raise DataError(f"{path}: 0 frames; {REENCODE}")
            self.height, self.width = first.rgb().shape[:2]
            self._turn = display_turn(path, first.frame)
            for note in (*first.decoder.notes, *frame_notes(first.frame)):
                _log_note_once(path, note)

    @property
    def num_frames(self) -> int:
        """Number of frames: all are decoded and counted, once in a process."""
        return self._extent.num_frames

    @property
    def fps(self) -> float:
        """Average frames per second, from the times at which the first and the last frame are shown."""
        return self._extent.fps

    @property
    def _extent(self) -> Extent:
        status = self._path.stat()
        return _measure(self._path, status.st_size, status.st_mtime_ns)

    def frames(self) -> Iterator[Frames]:
        """All frames, one after another, each uint8 (H, W, 3).

        Raises:
            DataError: frames that cannot be decoded, or one of another size.
            OSError: the volume does not give the file's content.
        """
        with closing(numbered_frames(self._path)) as found:
            for shown in found:
                yield self._picture_of(shown)

    def get(self, indices: Sequence[int]) -> Frames:
        """Frames at the positions 0 <= index < num_frames, uint8 (len(indices), H, W, 3).

        Raises:
            DataError: a position outside of the video, or frames that cannot be decoded.
            OSError: the volume does not give the file's content.
        """
        if any(index < 0 for index in indices):
            raise frame_outside(self._path, min(indices), self.num_frames)
        result = np.empty((len(indices), self.height, self.width, 3), dtype=np.uint8)
        wanted: dict[int, list[int]] = {}
        for position, index in enumerate(indices):
            wanted.setdefault(index, []).append(position)
        last, number = max(wanted, default=-1), -1
        if last < 0:
            return result
        with closing(numbered_frames(self._path, min(wanted), self._entry_points)) as found:
            for shown in found:
                number = shown.number
                if number in wanted:
                    result[wanted.pop(number)] = self._picture_of(shown)
                if number == last:
                    return result
        raise frame_outside(self._path, max(wanted), number + 1)

    def _picture_of(self, shown: Shown) -> Frames:
        turn = display_turn(self._path, shown.frame)
        refuse_other_turn(self._path, shown.number, turn, self._turn)
        return picture_of(self._path, shown, self.height, self.width)


def picture_of(path: Path, shown: Shown, height: int, width: int) -> Frames:
    """A decoded frame as RGB, uint8 (height, width, 3).

    Raises:
        UnreadableVideo: it is damaged, or of another size.
    """
    if shown.frame.is_corrupt:
        raise UnreadableVideo(path, f"frame {shown.number} is damaged")
    picture = shown.rgb()
    if picture.shape[:2] != (height, width):
        rows, columns = picture.shape[:2]
        value = f"frame {shown.number} is {rows}x{columns}, the video {height}x{width}"
        raise UnreadableVideo(path, value)
    return picture


def frame_outside(path: Path, number: int, num_frames: int) -> DataError:
    """The error for a frame that a video does not have."""
    return DataError(
        f"{path}: frame {number} asked for, the video has {num_frames}; run prepare-dataset again"
    )


@lru_cache(maxsize=256)
def _log_note_once(path: Path, note: str) -> None:
    logger.warning("video=%s note=%r", path, note)


@lru_cache(maxsize=256)
def _measure(path: Path, size: int, mtime_ns: int) -> Extent:
    """Decode a whole file; the result counts as long as its size and time are the same."""
    del size, mtime_ns
    num_frames, first, last = 0, None, None
    with Decoder(path) as decoder:
        for frame in decoder.frames():
            num_frames += 1
            first, last = frame.pts if num_frames == 1 else first, frame.pts
        fps = decoder.average_rate
        if num_frames > 1 and first is not None and last is not None and last > first:
            fps = (num_frames - 1) / ((last - first) * decoder.tick)
    return Extent(num_frames, round(float(fps), 3))


def open_video(path: Path, entry_points: Sequence[EntryPoint] = ()) -> VideoReader:
    """Open a video file; arguments of :class:`VideoReader`.

    Raises:
        DataError: no such file, or not a video that can be decoded.
        OSError: the volume does not give the file's content.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video file; add it or remove what names it")
    return VideoReader(path, entry_points)


def read_video(path: Path) -> Frames:
    """All frames, uint8 (T, H, W, 3) at the file's own size; for files that are known to be short.

    Raises:
        DataError: as ``open_video``, or a video without frames.
    """
    return np.stack(list(open_video(path).frames()))


def read_window(
    path: Path, start: int, num_frames: int, height: int, width: int, fit: Fit = "stretch"
) -> Frames:
    """Frames start .. start + num_frames - 1 at the wanted size, uint8 (T, H, W, 3).

    Raises:
        DataError: as ``open_video``, or a window that does not lie in the video.
    """
    frames = open_video(path).get(range(start, start + num_frames))
    return resize_frames(frames, height, width, fit)


def write_video(path: Path, frames: Frames, fps: float) -> None:
    """Write H.264 that browsers play (yuv420p, index at the front); the file is whole or absent.

    Args:
        path: .mp4 file, replaced if it exists.
        frames: uint8 (T, H, W, 3), T > 0, H and W even.
        fps: frames per second, > 0.

    Raises:
        ValueError: frames of another type or shape, or fps that is not positive.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(
            f"{path}: frames are {frames.dtype} {frames.shape}; give uint8 (T, H, W, 3) with T > 0"
        )
    if frames.shape[1] % 2 or frames.shape[2] % 2 or fps <= 0:
        raise ValueError(
            f"{path}: {frames.shape[1]}x{frames.shape[2]} at {fps} fps; H.264 needs even sizes and fps > 0"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "video.mp4"
        _encode(temporary, frames, Fraction(fps).limit_denominator(1001))
        temporary.replace(path)


def _encode(path: Path, frames: Frames, rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=_x264_options())
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # bytes do not depend on the machine's number of cores
        # FFmpeg converts RGB with the BT.601 matrix: say so, or players guess from the size.
        stream.codec_context.colorspace = av.video.reformatter.Colorspace.SMPTE170M
        stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _x264_options() -> dict[str, str]:
    options = {"crf": CONSTANT_RATE_FACTOR, "preset": "medium"}
    if torch.backends.cpu.get_cpu_capability() == "AVX512":  # such processors have AVX2, too
        options["x264-params"] = X264_WITHOUT_AVX512
    return options
