"""Videos of many kinds whose frames carry their number in the picture, and the frames that players show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from cosmos_worker.data.video.files import Frames

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 40
BITS, CELL = 6, 8
"""The number is written as bits in cells of the top rows, least significant first."""
TICK = Fraction(1, 90_000)


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> Frames:
    """A moving texture with its number, uint8 (H, W, 3); upright its first row of cells is at the top."""
    noise = np.random.default_rng(7).integers(40, 216, (height, width, 3), dtype=np.uint8)
    image = np.roll(noise, (number, 2 * number), axis=(0, 1))
    image[number % (height - 12) + 10 :][:2] = (250, 30, 30)
    for bit in range(BITS):
        image[: 2 * CELL, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 20
    return image


def number_of(image: Frames) -> int:
    """The number that an upright picture carries."""
    cells = (image[4 : 2 * CELL - 4, bit * CELL + 2 : (bit + 1) * CELL - 2] for bit in range(BITS))
    return sum(1 << bit for bit, cell in enumerate(cells) if cell.mean() > 128)


@dataclass(frozen=True)
class Kind:
    """Encoder, container and options of a video."""

    codec: str
    container: str = "mp4"
    options: dict[str, str] = field(default_factory=dict)
    gop: int = 12
    pix_fmt: str = "yuv420p"
    turn: tuple[int, bool, bool] = (0, False, False)
    """Degrees counterclockwise by which players turn it, then whether they mirror it left to right, upside down."""
    mux: dict[str, str] = field(default_factory=dict)
    start_s: Fraction = Fraction(0)
    """Presentation time of the first frame."""

    @property
    def is_missing(self) -> bool:
        """True if this PyAV has no such encoder."""
        try:
            av.Codec(self.codec, "w")
        except av.codec.codec.UnknownCodecError:
            return True
        return False


def write_numbered(
    path: Path, kind: Kind, numbers: Sequence[int] = range(NUM_FRAMES), fps: int = 30
) -> Path:
    """A file of one video stream whose frames carry these numbers when they are upright."""
    with av.open(str(path), "w", format=kind.container, options=kind.mux) as container:
        stream = add_video(container, kind, fps)
        for packet in encode(stream, kind, numbers, fps):
            container.mux(packet)
    return path


def add_video(container: Any, kind: Kind, fps: int) -> Any:
    """A new video stream."""
    stream = container.add_stream(kind.codec, rate=fps, options=kind.options)
    turned = kind.turn[0] % 180 != 0
    stream.width, stream.height = (HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT)
    stream.pix_fmt = kind.pix_fmt
    stream.codec_context.gop_size = kind.gop
    stream.codec_context.thread_count = 1
    if kind.turn != (0, False, False):
        stream.set_display_rotation(kind.turn[0], hflip=kind.turn[1], vflip=kind.turn[2])
    return stream


def encode(stream: Any, kind: Kind, numbers: Sequence[int], fps: int) -> Iterator[Any]:
    """Packets of frames with these numbers."""
    for position, number in enumerate(numbers):
        image = _stored(picture(number), kind.turn)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.time_base = Fraction(1, fps)
        frame.pts = round((kind.start_s * fps) + position)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _stored(image: Frames, turn: tuple[int, bool, bool]) -> Frames:
    """The stored picture that is upright once players have turned it, then flipped it."""
    degrees, left_right, up_down = turn
    image = image[:, ::-1] if left_right else image
    image = image[::-1] if up_down else image
    return np.rot90(image, -degrees // 90)


def stream_copy(
    source: Path,
    target: Path,
    start: int,
    end: int | None = None,
    fps: int = 30,
    *,
    key_frame: int | None = None,
    left_out: Sequence[int] = (),
) -> Path:
    """Cut a file without encoding it again: an edit list hides what is needed only to decode the first frame.

    Args:
        source: the file.
        target: the cut, an MP4.
        start: number of its first frame.
        end: number of the frame after its last one; None = all.
        fps: of the file.
        key_frame: begin with this key frame, even if the first frame needs an earlier one.
        left_out: frames that the cut loses although it has later ones.
    """
    with (
        av.open(str(source)) as old,
        av.open(str(target), "w", format="mp4", options={"avoid_negative_ts": "disabled"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        base = old.streams.video[0].time_base
        one_tick = Fraction(base.numerator, base.denominator)
        offset = int(Fraction(start, fps) / one_tick)
        limit = None if end is None else int(Fraction(end, fps) / one_tick)
        packets = [packet for packet in old.demux(video=0) if packet.size]
        lost = [int(Fraction(one, fps) / one_tick) for one in left_out]
        latest = offset if key_frame is None else int(Fraction(key_frame, fps) / one_tick)
        keys = [packet.dts for packet in packets if packet.is_keyframe and packet.pts <= latest]
        for packet in packets:
            is_late = limit is not None and packet.pts >= limit
            if packet.dts < keys[-1] or is_late or packet.pts in lost:
                continue
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = stream
            new.mux(packet)
    return target


def true_frames(
    path: Path, choose: Callable[[Any], Any] = lambda streams: streams[0]
) -> list[Frames]:
    """All frames as decoding from the start to the end shows them, upright, by PyAV alone."""
    with av.open(str(path)) as container:
        stream = choose(container.streams.video)
        stream.codec_context.thread_count = 1
        frames = list(container.decode(stream))
    assert [frame.pts for frame in frames] == sorted(frame.pts for frame in frames)
    return [_upright(frame) for frame in frames]


def _upright(frame: Any) -> Frames:
    image = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    numbers = np.frombuffer(bytes(matrix), np.int32) // (1 << 16)
    ((a, b), (c, d)) = numbers[[0, 1]], numbers[[3, 4]]
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    down, right = b * columns + d * rows, a * columns + c * rows
    down, right = down - down.min(), right - right.min()
    turned = np.empty((down.max() + 1, right.max() + 1, 3), np.uint8)
    turned[down, right] = image
    return turned
