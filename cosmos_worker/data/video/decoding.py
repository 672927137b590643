"""Frames of a video file in the order in which players show them: one stream, upright, as RGB. Decoded by PyAV.

Decoding a file from its start to its end is the truth that everything else is compared with. Each file is decoded on
one thread, so that damaged files give the same frames everywhere; several files are decoded at the same time instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import Any, Literal, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from cosmos_worker.data.video.upright import (
    UPRIGHT,
    Turn,
    matrix_parts,
    turn_of,
    turn_upright,
)
from cosmos_worker.errors import DataError

Frames = NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded, 8192x8192: a damaged header must not ask for all memory."""
READ_BYTES = 4 << 20
"""What ``read_through`` reads at a time."""
REENCODE = "re-encode it (ffmpeg -i OLD -c:v libx264 -pix_fmt yuv420p NEW) or remove the clip"
COPY_AGAIN = f"copy or fetch it again if it is cut off, {REENCODE}"
TONE_MAP = (
    "convert it to standard dynamic range (ffmpeg -i OLD -vf zscale=t=linear:npl=100,format=gbrpf32le,"
    "tonemap=hable,zscale=t=bt709:m=bt709:p=bt709:r=tv,format=yuv420p -c:v libx264 NEW) or remove the clip"
)
CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,obu,h264,hevc,m4v,nut,mxf,"
    "yuv4mpegpipe,gif"
)
"""FFmpeg's names of the containers that are read: playlists and scripts are none, they would open other files."""
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of high dynamic range (ITU-T H.273): as RGB of 8 bits they would look washed out."""
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Matrix coefficients (ITU-T H.273) that swscale converts to RGB; 2 = not told, which is converted as BT.601."""
ANY_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
"""Titles need not be UTF-8; PyAV 19 and later always read them so."""
INTERLACED = "interlaced, both fields stay in one frame (ffmpeg -vf yadif separates them)"
DECODER_ERRORS = (
    av.FFmpegError, ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, ValueError,
)  # fmt: skip
"""What PyAV raises, or may raise, on damaged files, as some of its errors are those of Python: each costs the file, not
the dataset. TypeError and AttributeError would be ours."""

Kind = Literal["video_unreadable", "high_dynamic_range"]
REMEDIES: dict[Kind, str] = {"video_unreadable": COPY_AGAIN, "high_dynamic_range": TONE_MAP}


class UnreadableVideo(DataError):  # noqa: N818 - named after what it is about
    """A file that does not decode to frames.

    Attributes:
        value: why, in one line.
        kind: what to do about it.
        is_decoders: FFmpeg gave up; else this module refuses the file.
    """

    def __init__(
        self, path: Path, value: str, kind: Kind = "video_unreadable", *, is_decoders: bool = False
    ) -> None:
        self.value = value
        self.kind: Kind = kind
        self.is_decoders = is_decoders
        super().__init__(f"{path}: cannot be decoded as video: {value}; {REMEDIES[kind]}")


class Decoder:
    """An open video file whose frames come one after another; a context manager.

    Attributes:
        num_claimed: frames that the container claims; 0 = it does not tell.
        tick: seconds per unit of presentation times.
        average_rate: frames per second as the container estimates them; 0 = it does not tell.
        notes: what is done with the file that its author may not expect, one short sentence each.
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
            with blame(path):
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
        return self._blamed(self._container.decode(self._stream))

    def frames_after_seek(self, time: int) -> Iterator[Any]:
        """Frames from the key frame on to which the container leads at a presentation time in ticks.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        with blame(self.path):
            self._container.seek(time, stream=self._stream, backward=True, any_frame=False)
        return self.frames()

    def frames_after_skip(self, time: int) -> Iterator[Any]:
        """Frames from the key frame of a presentation time on; what is coded before is read, but not decoded.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        packets = dropwhile(
            lambda packet: not packet.is_keyframe or packet.pts != time,
            self._container.demux(self._stream),
        )
        return self._blamed(frame for packet in packets for frame in packet.decode())

    def _blamed(self, frames: Iterable[Any]) -> Iterator[Any]:
        decoded = iter(frames)
        while True:
            with blame(self.path):
                frame = next(decoded, None)
            if frame is None:
                return
            yield frame

    def packet_times(self) -> list[int | None]:
        """Presentation times of the coded frames that are to be shown, in the order in which they are stored.

        Raises:
            UnreadableVideo, OSError: as frames.
        """
        with blame(self.path):
            packets = self._container.demux(self._stream)
            return [one.pts for one in packets if one.size > 0 and not one.is_discard]

    def rgb(self, frame: Any) -> Frames:  # noqa: ANN401 - PyAV has no public types
        """A frame upright, uint8 (H, W, 3); matrix and range are those that the file tells.

        Raises:
            UnreadableVideo: a display matrix or colours that are not supported.
        """
        with blame(self.path):
            refuse_colours(self.path, frame)
            turn = display_turn(self.path, frame)
            picture = self._reformatter.reformat(frame, format="rgb24", threads=1)
            pixels = cast(Frames, picture.to_ndarray())
            return np.ascontiguousarray(turn_upright(pixels, turn))


def as_fraction(rational: Any) -> Fraction:  # noqa: ANN401 - Fraction, or AVRational since PyAV 19
    """A number of PyAV's; 0 for what a file does not tell."""
    if not rational or not rational.denominator:
        return Fraction(0)
    return Fraction(rational.numerator, rational.denominator)


def _open_container(path: Path, with_edit_list: bool) -> Any:  # noqa: ANN401 - as above
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    if not with_edit_list:
        options["ignore_editlist"] = "1"
    with blame(path):
        try:  # "file:" keeps a name with a colon from being taken for a protocol
            return av.open(f"file:{path}", options=options, **ANY_METADATA)
        except av.ArgumentError:
            value = "not in a container of videos, such as MP4, MOV, MKV, WebM, AVI or MPEG-TS"
            raise UnreadableVideo(path, value) from None


def _is_picture(stream: Any) -> bool:  # noqa: ANN401 - PyAV has no public types
    """Whether a stream is a cover or a thumbnail."""
    kinds = av.stream.Disposition
    pictures = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return bool(stream.disposition & pictures)


# --- upright ---------------------------------------------------------------------------------


def display_turn(path: Path, frame: Any) -> Turn:  # noqa: ANN401 - PyAV has no public types
    """The turn or flip by which a frame becomes upright.

    Raises:
        UnreadableVideo: a turn by another angle than multiples of 90 degrees.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    parts = matrix_parts(bytes(matrix))
    turn = turn_of(parts)
    if turn is None:
        shown = ", ".join(f"{part:.3g}" for part in parts)
        value = f"its display matrix ({shown}) is no turn by 90, 180 or 270 degrees and no flip"
        raise UnreadableVideo(path, value)
    return turn


def refuse_other_turn(path: Path, number: int, turn: Turn, first: Turn) -> None:
    """Refuse a frame that is not turned as the first one is: players do not agree on what they show then.

    Raises:
        UnreadableVideo: another turn.
    """
    if turn != first:
        value = f"frame {number} is to be turned otherwise than the first one"
        raise UnreadableVideo(path, value)


# --- colours ---------------------------------------------------------------------------------


def refuse_colours(path: Path, frame: Any) -> None:  # noqa: ANN401 - PyAV has no public types
    """Refuse what would become wrong colours.

    Raises:
        UnreadableVideo: high dynamic range, or a matrix that swscale cannot convert.
    """
    transfer = HDR_TRANSFERS.get(frame.color_trc)
    if transfer is not None:
        value = f"high dynamic range ({transfer}), which cannot be shown as RGB of 8 bits"
        raise UnreadableVideo(path, value, "high_dynamic_range")
    if frame.colorspace not in MATRICES:
        value = f"colour matrix {frame.colorspace} of ITU-T H.273, which cannot be converted to RGB"
        raise UnreadableVideo(path, value)


def frame_notes(frame: Any) -> list[str]:  # noqa: ANN401 - PyAV has no public types
    """What is lost of a frame, one short sentence each."""
    notes = []
    if frame.interlaced_frame:
        notes.append(INTERLACED)
    if any(component.is_alpha for component in frame.format.components):
        notes.append("transparent, its alpha channel is ignored")
    return notes


# --- blame -----------------------------------------------------------------------------------


@contextmanager
def blame(path: Path) -> Iterator[None]:
    """Turn what PyAV raises on a damaged file into an error of the file, unless the volume is to blame.

    Raises:
        UnreadableVideo: the file is at fault.
        OSError: as :func:`read_through`.
    """
    try:
        yield
    except DECODER_ERRORS as error:
        read_through(path)
        raise UnreadableVideo(path, describe(error), is_decoders=True) from None


def describe(error: BaseException) -> str:
    """A decoder's error in a few words."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, UnicodeError):
        return "text in it is not UTF-8"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


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
