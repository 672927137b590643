"""When the frames of a video file are shown: the rate of a clip, the part of a file that it is, sampling at a rate."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from cosmos_worker.data.problems import BadClip

RATE_TOLERANCE = 0.1
"""Largest deviation of a frame's duration from the median, as a share: admits times rounded to milliseconds up to
60 frames per second, and not a single frame that is left out."""
EARLY = Fraction(1, 10)
"""Most of a frame's duration by which it counts as shown before its time."""
MAX_STRAY = 4
"""Most frames that a cut leaves after a gap: encoders code few frames long before they are shown."""
MAX_REPEATS = 100
"""Most samples per frame, on average, when frames are sampled at a rate: more is a damaged time, not a video."""


@dataclass(frozen=True)
class Timeline:
    """Presentation times of all frames of a file, ascending."""

    times: tuple[int, ...]
    """In ticks; not empty."""
    tick: Fraction
    """Seconds."""
    last_duration: int
    """Ticks for which the last frame is shown, > 0."""

    @property
    def num_frames(self) -> int:
        """Frames of the file."""
        return len(self.times)

    @cached_property
    def usual_gap(self) -> int:
        """Median number of ticks between two frames."""
        gaps = sorted(after - before for before, after in pairwise(self.times))
        return gaps[len(gaps) // 2] if gaps else self.last_duration

    def ticks(self, number: int) -> int:
        """Presentation time of a frame; the file's end for the number after the last."""
        if number == self.num_frames:
            return self.times[-1] + self.last_duration
        return self.times[number]

    def as_json(self) -> dict[str, Any]:
        """A short form: runs of equal gaps."""
        gaps = [after - before for before, after in pairwise(self.times)]
        runs = [[gap, len(list(run))] for gap, run in groupby(gaps)]
        return {
            "start": self.times[0],
            "gaps": runs,
            "tick": str(self.tick),
            "last": self.last_duration,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Timeline:
        """Read :meth:`as_json`."""
        times = [int(value["start"])]
        for gap, length in value["gaps"]:
            for _ in range(length):
                times.append(times[-1] + int(gap))
        return cls(tuple(times), Fraction(value["tick"]), int(value["last"]))


def _rate(timeline: Timeline, frames: range) -> Fraction:
    """Average frames per second of a part of a file."""
    span = timeline.times[frames[-1]] - timeline.times[frames[0]]
    if span == 0:  # a single frame
        return 1 / (timeline.usual_gap * timeline.tick)
    return (len(frames) - 1) / (span * timeline.tick)


def constant_rate(timeline: Timeline, frames: range, name: str) -> Fraction:
    """Frames per second of a part of a file whose frames are shown at equal intervals.

    Args:
        timeline: of the file.
        frames: numbers of the part; not empty.
        name: how messages call the file.

    Raises:
        BadClip: intervals that are not equal within RATE_TOLERANCE.
    """
    times = timeline.times[frames.start : frames.stop]
    gaps = [after - before for before, after in pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else timeline.usual_gap
    for number, gap in enumerate(gaps, frames.start):
        if abs(gap - usual) > usual * RATE_TOLERANCE:
            lasts, others = float(gap * timeline.tick), float(usual * timeline.tick)
            value = (
                f"variable frame rate: frame {number} lasts {lasts:.4g} s, others {others:.4g} s"
            )
            raise BadClip(name, "variable_frame_rate", value)
    return _rate(timeline, frames)


def stray_frames(timeline: Timeline) -> int:
    """Frames at the end that come after a gap, where the others are shown at equal intervals; 0 = none.

    A file that was cut without encoding it again may end with frames that are coded before, but shown after some that
    the cut has left out.
    """
    usual, num_frames = timeline.usual_gap, timeline.num_frames
    gaps = [after - before for before, after in pairwise(timeline.times)]
    uneven = [
        number for number, gap in enumerate(gaps) if abs(gap - usual) > usual * RATE_TOLERANCE
    ]
    if not uneven or uneven[0] < len(gaps) - MAX_STRAY:
        return 0
    return num_frames - 1 - uneven[0]


def frames_between(
    timeline: Timeline, start_s: float | None, end_s: float | None, name: str, source: str
) -> range:
    """Numbers of the frames that are shown from one time to another, half a frame early.

    Args:
        timeline: of the file.
        start_s: seconds after the first frame; None = with it.
        end_s: seconds after the first frame, of the first frame that does not belong; None = the file's end.
        name: how messages call the file.
        source: file that gives the times.

    Raises:
        BadClip: times that the file does not have, or no frame between them.
    """
    origin, half = timeline.times[0], Fraction(timeline.usual_gap, 2)
    end_of_file = timeline.ticks(timeline.num_frames)
    try:
        start = origin if start_s is None else origin + Fraction(start_s) / timeline.tick
        end = end_of_file if end_s is None else origin + Fraction(end_s) / timeline.tick
    except (ValueError, OverflowError):  # NaN, infinite
        start = end = origin - 1 - half
    first = bisect_left(timeline.times, start - half)
    last = timeline.num_frames if end_s is None else bisect_left(timeline.times, end - half)
    if start < origin - half or end > end_of_file + half or first >= last:
        seconds = float((end_of_file - origin) * timeline.tick)
        value = (
            f"the clip is {_seconds(start_s, '0')} to {_seconds(end_s, 'the end')} s of {name}, which has "
            f"{timeline.num_frames} frames in {describe_seconds(seconds)} s"
        )
        raise BadClip(source, "clip_outside", value)
    return range(first, last)


def describe_seconds(seconds: float) -> str:
    """A time that is not negative as short as milliseconds allow; of less than 1000 s it has six significant digits."""
    if not 1000 <= seconds < math.inf:
        return f"{seconds:.6g}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _seconds(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else describe_seconds(value)


def sample_at(timeline: Timeline, frames: range, fps: float, name: str) -> Sequence[int]:
    """Numbers of the frames that are shown at the times 0, 1 / fps, 2 / fps .. of a part of a file.

    The presentation times of a part's first frame and of any other are rounded to ticks, so a frame counts as shown
    less than a tick before its time; where a frame lasts few ticks, which are exact then, a share of a frame.

    Args:
        timeline: of the file.
        frames: numbers of the part; not empty.
        fps: samples per second.
        name: how messages call the file.

    Raises:
        BadClip: a part in which frames are shown for so long that it is no video.
    """
    start, end = timeline.ticks(frames.start), timeline.ticks(frames.stop)
    step = 1 / (Fraction(str(fps)) * timeline.tick)
    early = min(Fraction(1), timeline.usual_gap * EARLY)
    count = max(1, -((min(early, step / 2) - (end - start)) // step))  # samples before the end
    if count > MAX_REPEATS * len(frames):
        value = f"{len(frames)} frames in {float((end - start) * timeline.tick):.6g} s"
        raise BadClip(name, "variable_frame_rate", value)
    numbers: list[int] = []
    number = frames.start
    for sample in range(count):
        limit = start + sample * step + early
        while number + 1 < frames.stop and timeline.times[number + 1] < limit:
            number += 1
        numbers.append(number)
    return numbers
