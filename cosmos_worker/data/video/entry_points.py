"""Frames of a video file by their number, decoded from the nearest key frame from which that is proven exact.

The number of a frame counts in the order shown, from 0. Decoders that begin at a key frame do not always give the
frames that decoding from the start gives: leading frames of an open group of pictures are lost, a refresh that is
spread over many frames is not complete. So a key frame is used as an entry point only after the frames up to the next
one were decoded from both sides and are equal to the last bit; a file without entry points is decoded from its start.
"""

from __future__ import annotations

import logging
import zlib
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

from cosmos_worker.data.video.decoding import Decoder, Frames
from cosmos_worker.data.video.problems import UnreadableVideo

logger = logging.getLogger(__name__)

SPACING = 128
"""Fewest frames between entry points."""
MIN_FRAMES = 300
"""Files of fewer frames have none: they are decoded from the start in no time."""
MAX_MISSES = 8
"""Key frames that prove wrong before the rest is left alone."""

EntryPoint = tuple[int, int]
"""Number and presentation time in ticks of a key frame from which decoding is proven right."""


class EntryMissed(Exception):  # noqa: N818 - it is handled at once
    """Decoding does not begin at an entry point any more, as it did when the file was checked."""


class Shown(NamedTuple):
    """A decoded frame and its number; usable until the next one is taken."""

    number: int
    frame: Any
    decoder: Decoder

    def rgb(self) -> Frames:
        """The frame upright, uint8 (H, W, 3); raises as :meth:`Decoder.rgb`."""
        return self.decoder.rgb(self.frame)


def numbered_frames(
    path: Path, first: int = 0, entry_points: Sequence[EntryPoint] = ()
) -> Generator[Shown, None, None]:
    """Frames from number ``first`` to the end of the file.

    Args:
        path: of the file.
        first: number of the first frame that is given.
        entry_points: of the file, ascending; frames between two are decoded from the first of them.

    Raises:
        UnreadableVideo: the file does not decode.
        OSError: the volume does not give its content.
    """
    position = bisect_right(entry_points, first, key=lambda entry: entry[0]) - 1
    while True:
        entry = entry_points[position] if position >= 0 else None
        following = entry_points[position + 1][0] if position + 1 < len(entry_points) else None
        try:
            with closing(_frames_from(path, entry)) as frames:
                for shown in frames:
                    if shown.number == following:
                        break
                    if shown.number >= first:
                        yield shown
                else:
                    return
        except EntryMissed:
            logger.warning("%s: not entered at frame %d as proven, decoding all", path, first)
            entry_points, position = (), -1
            continue
        assert following is not None
        first, position = max(first, following), position + 1


def _frames_from(path: Path, entry: EntryPoint | None) -> Generator[Shown, None, None]:
    """Frames from an entry point, or from the start of the file, to its end.

    Raises:
        EntryMissed: before the first frame, if it is not that of the entry point.
    """
    if entry is None:
        with Decoder(path) as decoder:
            for number, frame in enumerate(decoder.frames()):
                yield Shown(number, frame, decoder)
        return
    number, time = entry
    for enter in (Decoder.frames_after_seek, Decoder.frames_after_skip):
        with Decoder(path) as decoder:
            try:
                frames = enter(decoder, time)
                frame = next(dropwhile(lambda one: one.pts is not None and one.pts < time, frames))
            except (UnreadableVideo, StopIteration):
                continue
            if frame.pts != time:
                continue
            yield Shown(number, frame, decoder)
            for later, frame in enumerate(frames, number + 1):
                yield Shown(later, frame, decoder)
            return
    raise EntryMissed


def checksum(shown: Shown) -> int:
    """CRC-32 of a frame's pixels and presentation time."""
    return zlib.crc32(shown.rgb().data, zlib.crc32(str(shown.frame.pts).encode()))


def prove_entry_points(
    path: Path, candidates: Sequence[EntryPoint], checksums: Sequence[int]
) -> tuple[EntryPoint, ...]:
    """The candidates from which decoding gives the frames up to the next entry point bit for bit.

    Args:
        path: of the file.
        candidates: key frames, ascending.
        checksums: of all frames of the file, as decoding from the start gives them.

    Raises:
        OSError: the volume does not give the file's content.
    """
    proven: list[EntryPoint] = []
    end, misses = len(checksums), 0
    for candidate in reversed(candidates):
        if _is_same(path, candidate, checksums[candidate[0] : end]):
            proven.append(candidate)
            end = candidate[0]
        else:
            misses += 1
            if misses == MAX_MISSES:
                break
    return tuple(reversed(proven))


def _is_same(path: Path, entry: EntryPoint, checksums: Sequence[int]) -> bool:
    try:
        with closing(_frames_from(path, entry)) as frames:
            found = map(checksum, islice(frames, len(checksums)))
            num_same = 0
            for ours, wanted in zip(
                found, checksums, strict=False
            ):  # fewer frames are counted below
                if ours != wanted:
                    return False
                num_same += 1
            return num_same == len(checksums)
    except (EntryMissed, UnreadableVideo):
        return False
