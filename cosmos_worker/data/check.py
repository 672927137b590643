"""Is a clip usable: decode every frame once and compare what file, decoder and annotation say.

decord alone cannot tell: it returns as many frames as the container claims, repeating or patching damaged ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from cosmos_worker.data.buckets import choose_bucket
from cosmos_worker.data.candidate import Candidate, Listing
from cosmos_worker.data.index import Clip, window_starts
from cosmos_worker.data.journal import Journal, VideoFacts
from cosmos_worker.data.parallel import map_in_threads
from cosmos_worker.data.problems import TOO_SHORT, BadClip
from cosmos_worker.data.video import (
    REENCODE,
    first_video_stream,
    has_decord,
    open_video,
    read_through,
)
from cosmos_worker.errors import DataError
from cosmos_worker.layout import sha256_of_file
from cosmos_worker.options import VideoConfig

RATE_TOLERANCE = 0.1
"""Largest deviation of a frame's duration from the median, as a share: admits times rounded to milliseconds up to
60 frames per second, and not a single frame that is left out."""


@dataclass(frozen=True)
class CheckedClips:
    """The outcome for every clip that a dataset names."""

    kept: tuple[Clip, ...]
    bad: tuple[BadClip, ...]
    too_short: tuple[BadClip, ...]
    """Sound clips without a single window."""

    @property
    def num_clips(self) -> int:
        """Clips that the dataset names."""
        return len(self.kept) + len(self.bad) + len(self.too_short)


def check_clips(
    root: Path,
    listing: Listing,
    video: VideoConfig,
    num_workers: int,
    journal: Journal,
    buckets: Sequence[VideoConfig] = (),
) -> CheckedClips:
    """Check all clips of a dataset, ``num_workers`` at the same time; the order is that of the listing.

    Args:
        root: folder of the dataset.
        listing: its clips.
        video: the window.
        num_workers: threads; decoders release the interpreter's lock.
        journal: videos in it are not decoded again.
        buckets: windows to choose from instead, if there are any.
    """

    def outcome(candidate: Candidate) -> Clip | BadClip:
        try:
            return check_clip(root, candidate, video, journal, buckets)
        except BadClip as problem:
            return problem

    has_decord()  # log the decoder once, before the threads start
    outcomes = map_in_threads(outcome, listing.candidates, num_workers, "check-clips", "clips")
    problems = [item for item in outcomes if isinstance(item, BadClip)]
    return CheckedClips(
        kept=tuple(item for item in outcomes if isinstance(item, Clip)),
        bad=(*listing.bad, *(item for item in problems if item.reason != TOO_SHORT)),
        too_short=tuple(item for item in problems if item.reason == TOO_SHORT),
    )


def check_clip(
    root: Path,
    candidate: Candidate,
    video: VideoConfig,
    journal: Journal,
    buckets: Sequence[VideoConfig] = (),
) -> Clip:
    """Check one clip against its video and annotation; arguments of :func:`check_clips`.

    Raises:
        BadClip: also, with reason ``too_short``, for a sound clip without a window.
    """
    path = root / candidate.video
    if not path.is_file():
        value = f"its video {candidate.video} does not exist"
        raise BadClip(candidate.source, "video_missing", value)
    facts = examine(root, candidate.video, journal)
    for name, length in candidate.num_annotated.items():
        if length != facts.num_frames:
            value = f"{name} has {length} entries, {candidate.video} has {facts.num_frames} frames"
            raise BadClip(candidate.source, "annotation_mismatch", value)
    chosen = choose_bucket(facts.num_frames, facts.height, facts.width, buckets or (video,))
    if chosen is None:
        shortest = min(bucket.num_pixel_frames for bucket in buckets or (video,))
        taker = "one window" if not buckets else "the shortest bucket"
        value = f"{facts.num_frames} frames, {taker} takes {shortest}"
        raise BadClip(candidate.video, TOO_SHORT, value)
    return Clip(
        clip_id=candidate.clip_id,
        split=candidate.split,
        video=candidate.video,
        captions=candidate.captions,
        num_frames=facts.num_frames,
        fps=facts.fps,
        height=facts.height,
        width=facts.width,
        window_starts=window_starts(
            facts.num_frames, chosen.num_pixel_frames, chosen.window_stride
        ),
        video_sha256=facts.sha256,
        bucket=chosen.size_name if buckets else None,
    )


def examine(root: Path, name: str, journal: Journal) -> VideoFacts:
    """What the journal knows of a video, else what decoding it tells.

    Args:
        root: folder of the dataset.
        name: path of the file relative to it.
        journal: receives the outcome.

    Raises:
        BadClip: the video is unusable.
        OSError: the volume does not give its content; the journal receives nothing.
    """
    outcome = journal.find(root, name)
    if outcome is None:
        try:
            outcome = decode_fully(root / name, name)
            _compare_with_reader(root / name, name, outcome)
        except BadClip as problem:
            read_through(root / name)
            outcome = problem
        journal.add(root, name, outcome)
    if isinstance(outcome, BadClip):
        raise outcome
    return outcome


def decode_fully(path: Path, name: str) -> VideoFacts:
    """Decode all frames of a file and check count, damage, sizes and timestamps.

    Args:
        path: the file.
        name: how messages call it.

    Raises:
        BadClip: the file is empty, damaged, of changing size or of variable frame rate.
    """
    if path.stat().st_size == 0:
        raise BadClip(name, "video_empty", "0 bytes")
    times: list[int] = []
    claimed = 0
    try:
        with av.open(str(path)) as container:
            stream = first_video_stream(container, path)
            claimed, size = stream.frames, (stream.height, stream.width)
            tick, average = Fraction(stream.time_base), Fraction(stream.average_rate or 0)
            for frame in container.decode(stream):
                _check_frame(frame, len(times), size, name)
                times.append(frame.pts)
    except (av.FFmpegError, OSError) as error:
        value = f"{error.strerror or error} after {len(times)} of {claimed or 'unknown'} frames"
        raise BadClip(name, "video_unreadable", value) from None
    except BadClip:
        raise
    except DataError:
        raise BadClip(name, "video_unreadable", "no video stream in it") from None
    if not times:
        raise BadClip(name, "video_empty", "0 frames")
    if claimed and claimed != len(times):
        value = f"{len(times)} frames can be decoded, the file claims {claimed}"
        raise BadClip(name, "frame_count", value)
    fps = frame_rate(times, tick, name) if len(times) > 1 else average
    if fps <= 0:
        raise BadClip(name, "variable_frame_rate", "no frame rate in it")
    return VideoFacts(len(times), size[0], size[1], round(float(fps), 3), sha256_of_file(path))


def _check_frame(frame: Any, number: int, size: tuple[int, int], name: str) -> None:  # noqa: ANN401
    if frame.is_corrupt:
        raise BadClip(name, "video_damaged", f"frame {number} is damaged")
    if (frame.height, frame.width) != size:
        value = f"frame {number} is {frame.height}x{frame.width}, the video {size[0]}x{size[1]}"
        raise BadClip(name, "frame_size", value)
    if frame.pts is None:
        raise BadClip(name, "variable_frame_rate", f"frame {number} has no timestamp")


def frame_rate(times: list[int], tick: Fraction, name: str) -> Fraction:
    """Frames per second of two or more presentation times.

    Args:
        times: ascending presentation times in ticks.
        tick: seconds per tick.
        name: how messages call the file.

    Raises:
        BadClip: times that do not ascend evenly.
    """
    gaps = [after - before for before, after in pairwise(times)]
    usual = sorted(gaps)[len(gaps) // 2]
    for number, gap in enumerate(gaps):
        if gap <= 0 or abs(gap - usual) > usual * RATE_TOLERANCE:
            lasts, others = float(gap * tick), float(usual * tick)
            value = (
                f"variable frame rate: frame {number} lasts {lasts:.4g} s, others {others:.4g} s"
            )
            raise BadClip(name, "variable_frame_rate", value)
    return len(gaps) / ((times[-1] - times[0]) * tick)


def _compare_with_reader(path: Path, name: str, facts: VideoFacts) -> None:
    """The reader of later stages must see the same video, up to its last frame."""
    try:
        reader = open_video(path)
        seen = (reader.num_frames, reader.height, reader.width)
        if seen == (facts.num_frames, facts.height, facts.width):
            reader.get([facts.num_frames - 1])
            return
    except DataError as error:
        value = str(error).removeprefix(f"{path}: ").removesuffix(f"; {REENCODE}")
        raise BadClip(name, "video_unreadable", value) from None
    value = f"the decoder sees {seen[0]} frames of {seen[1]}x{seen[2]}, "
    value += f"the file has {facts.num_frames} of {facts.height}x{facts.width}"
    raise BadClip(name, "frame_count", value)
