"""Frames of a video file in the order in which players show them: one stream, upright, as RGB. Decoded by PyAV.

The frames of a file are those that decoding it from its start to its end gives; all shortcuts are compared with them.
Each file is decoded on one thread, so that damaged files give the same frames everywhere; several files are decoded at
the same time instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from cosmos_worker.data.video.picture import display_turn, refuse_colours, turn_upright
from cosmos_worker.data.video.problems import UnreadableVideo
from cosmos_worker.storage.files import read_through

Frames = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded, 8192x8192: a damaged header must not ask for all memory."""
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,obu,h264,hevc,m4v,nut,mxf,"
    "yuv4mpegpipe,gif"
)
"""FFmpeg's names of the containers that are read: playlists and scripts are none, they would open other files."""
ANY_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""Titles need not be UTF-8; PyAV 19 and later always read them so."""
DECODER_ERRORS = (
    av.FFmpegError, ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""Exceptions that PyAV raises, or may raise, on a damaged file, as some of its errors are those of Python.
TypeError and AttributeError are not among them: they would be bugs of ours."""


class Decoder:
    """An open video file whose frames come one after another; a context manager.

    Attributes:
        num_claimed: frames that the container claims; 0 = unknown.
        tick: seconds per unit of presentation times.
        average_rate: frames per second as the container estimates them; 0 = unknown.
        notes: short sentences about the file being read in a way that its author may not expect.
    """

    def __init__(self, path: Path, *, with_edit_list: bool = True) -> None:
        """Open a file and choose the stream that players show.

        Args:
            path: of the file.
            with_edit_list: leave out what an MP4 file's edit list leaves out, as players do.

        Raises:
            UnreadableVideo: no video stream, or none that can be decoded.
            OSError: the volume does not give the file's content.
        """
        self.path = path
        self.notes: list[str] = []
        self._reformatter = VideoReformatter()
        self._container = _open_container(path, with_edit_list)
        try:
            with errors_of_decoder(path):
                self._stream = self._choose_stream()
                self._check_stream()
                self.num_claimed: int = self._stream.frames
                self.tick = as_fraction(self._stream.time_base)
                self.average_rate = as_fraction(self._stream.average_rate)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def _choose_stream(self) -> Any:  # noqa: ANN401 - PyAV has no public types
        """The first stream that is shown by default, else the first; a cover picture is no video.

        A stream of a single frame is a thumbnail where there are others.
        """
        shown = [one for one in self._container.streams.video if not _is_picture(one)]
        shown = [one for one in shown if one.frames != 1] or shown
        if not shown:
            read_through(self.path)
            raise UnreadableVideo(self.path, "no video stream in it")
        default = [one for one in shown if one.disposition & av.stream.Disposition.default]
        chosen = (default or shown)[0]
        if len(shown) > 1:
            self.notes.append(
                f"{len(shown)} video streams, number {chosen.index} is read, which players show"
            )
        return chosen

    def _check_stream(self) -> None:
        stream, context = self._stream, self._stream.codec_context
        if context is None:
            raise UnreadableVideo(self.path, "its codec is unknown")
        if context.width * context.height > MAX_PIXELS:
            value = f"frames of {context.height}x{context.width}, more than {MAX_PIXELS} pixels"
            raise UnreadableVideo(self.path, value)
        if as_fraction(stream.time_base) <= 0:
            raise UnreadableVideo(self.path, "no unit of time in it")
        context.thread_count = 1
        context.options = {"max_pixels": str(MAX_PIXELS)}
        ratio = as_fraction(stream.sample_aspect_ratio)
        if ratio not in (0, 1):
            self.notes.append(
                f"pixels of {ratio.numerator}:{ratio.denominator} are taken as square"
            )

    def frames(self) -> Iterator[Any]:
        """PyAV's frames in the order shown; some may lack a time or be marked as damaged.

        Raises:
            UnreadableVideo: damage that ends decoding.
            OSError: as the constructor.
        """
        return self._named(self._container.decode(self._stream))

    def frames_after_seek(self, time: int) -> Iterator[Any]:
        """Frames from the key frame on to which the container leads at a presentation time in ticks.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        with errors_of_decoder(self.path):
            self._container.seek(time, stream=self._stream, backward=True, any_frame=False)
        return self.frames()

    def frames_after_skip(self, time: int) -> Iterator[Any]:
        """Frames from the key frame of a presentation time on; packets before it are read, but not decoded.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        packets = dropwhile(
            lambda packet: not packet.is_keyframe or packet.pts != time,
            self._container.demux(self._stream),
        )
        return self._named(frame for packet in packets for frame in packet.decode())

    def _named(self, frames: Iterable[Any]) -> Iterator[Any]:
        decoded = iter(frames)
        while True:
            with errors_of_decoder(self.path):
                frame = next(decoded, None)
            if frame is None:
                return
            yield frame

    def packet_times(self) -> list[int | None]:
        """Presentation times of the coded frames that are to be shown, in the order in which they are stored.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        with errors_of_decoder(self.path):
            packets = self._container.demux(self._stream)
            return [one.pts for one in packets if one.size > 0 and not one.is_discard]

    def rgb(self, frame: Any) -> Frames:  # noqa: ANN401 - PyAV has no public types
        """A frame upright, uint8 (H, W, 3); converted with the colour matrix and range that the file states.

        Raises:
            UnreadableVideo: a display matrix or colours that are not supported.
        """
        with errors_of_decoder(self.path):
            refuse_colours(self.path, frame)
            turn = display_turn(self.path, frame)
            picture = self._reformatter.reformat(frame, format="rgb24", threads=1)
            pixels = cast(Frames, picture.to_ndarray())
            return np.ascontiguousarray(turn_upright(pixels, turn))


def as_fraction(rational: Any) -> Fraction:  # noqa: ANN401 - Fraction, or AVRational since PyAV 19
    """A rational number of PyAV; 0 for None and for a denominator of 0, which mean unknown."""
    if not rational or not rational.denominator:
        return Fraction(0)
    return Fraction(rational.numerator, rational.denominator)


def _open_container(path: Path, with_edit_list: bool) -> Any:  # noqa: ANN401 - as above
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    if not with_edit_list:
        options["ignore_editlist"] = "1"
    with errors_of_decoder(path):
        try:  # "file:" keeps a name with a colon from being taken for a protocol
            return av.open(f"file:{path}", options=options, **ANY_METADATA)
        except av.ArgumentError:
            value = "not in a container of videos, such as MP4, MOV, MKV, WebM, AVI or MPEG-TS"
            raise UnreadableVideo(path, value) from None


def _is_picture(stream: Any) -> bool:  # noqa: ANN401 - PyAV has no public types
    """True if a stream is a cover or a thumbnail."""
    kinds = av.stream.Disposition
    pictures = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return bool(stream.disposition & pictures)


# --- errors -----------------------------------------------------------------------------------


@contextmanager
def errors_of_decoder(path: Path) -> Iterator[None]:
    """Turn exceptions of PyAV into an error of the file, after making sure that its volume gives all of it.

    Raises:
        UnreadableVideo: the file is at fault.
        OSError: as :func:`read_through`.
    """
    try:
        yield
    except DECODER_ERRORS as error:
        read_through(path)
        raise UnreadableVideo(path, describe(error), is_of_decoder=True) from None


def describe(error: BaseException) -> str:
    """A decoder's error in a few words."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, UnicodeError):
        return "text in it is not UTF-8"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
