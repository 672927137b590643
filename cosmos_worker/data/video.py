"""Video files as arrays: open, read a window at the model's size, write. Knows nothing of datasets.

Frames are decoded by decord where it has a wheel (Linux on x86-64), and by PyAV elsewhere and for tiny frames;
files are written by PyAV. Frames are uint8 RGB arrays (T, H, W, 3).
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import av
import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config import Fit
from cosmos_worker.data.fit import resize_frames
from cosmos_worker.errors import DataError

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

CONSTANT_RATE_FACTOR = "10"
"""Quality of written H.264 files: low enough that metrics of the file are those of the frames."""
X264_WITHOUT_AVX512 = "asm=SSE2Fast,FMA3,BMI2,AVX2"
"""x264's AVX-512 code gives other bytes for the same frames from time to time (found with x264 165 in a process with
other threads: up to 95 kinds of files in 800); its AVX2 code does not, and gives what its plain C gives."""
DECORD_MIN_WIDTH = 80
"""decord 0.6 refuses frames of 16, 24, 48 and 72 columns (found by trying all even widths from 16 to 400):
narrower files than this are read by PyAV."""
READ_BYTES = 4 << 20
"""What ``read_through`` reads at a time."""
REENCODE = "re-encode it (ffmpeg -i OLD -c:v libx264 -pix_fmt yuv420p NEW) or remove the clip"


class VideoReader(Protocol):
    """An open video file."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""

    @property
    def height(self) -> int:
        """Rows in pixels."""

    @property
    def width(self) -> int:
        """Columns in pixels."""

    @property
    def fps(self) -> float:
        """Average frames per second."""

    def get(self, indices: Sequence[int]) -> Frames:
        """Frames at the positions 0 <= index < num_frames, uint8 (len(indices), H, W, 3).

        Raises:
            DataError: a position outside of the video, or frames that cannot be decoded.
            OSError: the volume does not give the file's content.
        """


class DecordReader:
    """A video decoded by decord, which seeks to the wanted frames."""

    def __init__(self, path: Path) -> None:
        import decord

        self._path = path
        self._error: type[Exception] = decord.DECORDError
        try:
            self._reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
            self.num_frames = len(self._reader)
            shape: tuple[int, ...] = self._reader[0].shape if self.num_frames else (0, 0)
            self.height, self.width = shape[:2]
            self.fps = float(self._reader.get_avg_fps())
        except (self._error, RuntimeError, IndexError) as error:
            raise unreadable(path, error) from None

    def get(self, indices: Sequence[int]) -> Frames:
        """Frames at the given positions."""
        check_indices(self._path, indices, self.num_frames)
        try:
            frames = self._reader.get_batch(list(indices)).asnumpy()
        except (self._error, RuntimeError) as error:
            raise unreadable(self._path, error) from None
        return cast(Frames, frames)


class PyavReader:
    """A video decoded by PyAV, whole, when frames are first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: Frames | None = None
        try:
            with av.open(str(path)) as container:
                stream = first_video_stream(container, path)
                self.num_frames = stream.frames or sum(1 for _ in container.decode(stream))
                self.height, self.width = stream.height, stream.width
                self.fps = float(stream.average_rate or 0)
        except (av.FFmpegError, OSError) as error:
            raise unreadable(path, error) from None

    def get(self, indices: Sequence[int]) -> Frames:
        """Frames at the given positions."""
        check_indices(self._path, indices, self.num_frames)
        if self._frames is None:
            self._frames = self._decode()
        check_indices(self._path, indices, len(self._frames))
        return self._frames[list(indices)]

    def _decode(self) -> Frames:
        try:
            with av.open(str(self._path)) as container:
                stream = first_video_stream(container, self._path)
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        except (av.FFmpegError, OSError) as error:
            raise unreadable(self._path, error) from None
        empty = np.zeros((0, self.height, self.width, 3), dtype=np.uint8)
        return np.stack(frames) if frames else empty


@cache
def has_decord() -> bool:
    """Whether decord is installed here; logs the choice once."""
    found = importlib.util.find_spec("decord") is not None
    logger.info("video decoder=%s", "decord" if found else "pyav (decord is not installed)")
    return found


def open_video(path: Path) -> VideoReader:
    """Open a video file.

    Raises:
        DataError: no such file, or not a video that can be decoded.
        OSError: the volume does not give the file's content.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video file; add it or remove what names it")
    reader = PyavReader(path)
    return DecordReader(path) if has_decord() and reader.width >= DECORD_MIN_WIDTH else reader


def read_video(path: Path) -> Frames:
    """All frames, uint8 (T, H, W, 3) at the file's own size.

    Raises:
        DataError: as ``open_video``, or a video without frames.
    """
    reader = open_video(path)
    if reader.num_frames == 0:
        raise DataError(f"{path}: 0 frames; {REENCODE}")
    return reader.get(range(reader.num_frames))


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


def first_video_stream(container: Any, path: Path) -> Any:  # noqa: ANN401 - PyAV has no public types
    """The first video stream of an open PyAV container, set to decode on one thread.

    Raises:
        DataError: a file without a video stream.
        OSError: as ``read_through``.
    """
    if not container.streams.video:
        read_through(path)
        raise DataError(f"{path}: holds no video stream; replace the file or remove the clip")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    return stream


def check_indices(path: Path, indices: Sequence[int], num_frames: int) -> None:
    """Raise DataError unless 0 <= index < num_frames for all indices."""
    wrong = [index for index in indices if not 0 <= index < num_frames]
    if wrong:
        raise DataError(
            f"{path}: frame {wrong[0]} asked for, the video has {num_frames}; run prepare-dataset again"
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that a decoder refuses, in one line.

    Raises:
        OSError: as ``read_through``.
    """
    read_through(path)
    reason = " ".join(str(error).split())
    return DataError(f"{path}: cannot be decoded as video: {reason[:200]}; {REENCODE}")


def read_through(path: Path) -> None:
    """Read a file that seems broken from end to end: only if that succeeds, the file is to blame.

    A file that does not exist is left to the caller.

    Raises:
        OSError: the volume does not give the content, so that nothing is known of the file; a later attempt may.
    """
    try:
        with path.open("rb") as stream:
            while stream.read(READ_BYTES):
                pass
    except FileNotFoundError:
        return
    except OSError as error:
        if error.filename is None:  # it failed after it was opened
            error.filename = str(path)
        raise
