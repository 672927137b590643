"""Check the clips of a dataset: each file is decoded once, and must agree with what layout and annotation say of it."""

from __future__ import annotations

import errno
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config.choices import FrameRate
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.buckets import choose_bucket
from cosmos_worker.data.index import Clip, window_starts
from cosmos_worker.data.journal import Journal
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.problems import TOO_SHORT, BadClip, as_bad_clip
from cosmos_worker.data.video.entry_points import EntryPoint
from cosmos_worker.data.video.facts import (
    VideoFacts,
    decode_fully,
)
from cosmos_worker.data.video.frame_times import (
    constant_rate,
    frames_between,
    sample_at,
)
from cosmos_worker.runtime.progress import map_in_threads
from cosmos_worker.storage.files import counted, read_through

CheckedVideo = VideoFacts | BadClip
"""Facts of a file that can be used, or the reason why it cannot."""
NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that say that no file has this name; others are of the volume."""


@dataclass(frozen=True)
class CheckedClips:
    """All clips that a dataset names: those that are kept, and the others with the reason."""

    kept: tuple[Clip, ...]
    bad: tuple[BadClip, ...]
    too_short: tuple[BadClip, ...]
    """Sound clips without a single window."""
    notes: tuple[tuple[str, str], ...] = ()
    """(file, note) of files of kept clips that are read in a way which their author may not expect."""

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
    frame_rate: FrameRate = "constant",
) -> CheckedClips:
    """Check all clips of a dataset; the order is that of the listing.

    Each file is decoded once, however many clips share it, ``num_workers`` files at the same time.

    Args:
        root: folder of the dataset.
        listing: its clips.
        video: the window.
        num_workers: threads; decoders release the interpreter's lock.
        journal: videos in it are not decoded again.
        buckets: windows to choose from instead, if there are any.
        frame_rate: resample = take the frames shown at the rate of the window, which must have one.
    """

    def checked(name: str) -> CheckedVideo:
        try:
            return check_video(root, name, journal)
        except BadClip as problem:
            return problem

    names = sorted({candidate.video for candidate in listing.candidates})
    outcomes = map_in_threads(checked, names, num_workers, "check-clips", "videos")
    videos = dict(zip(names, outcomes, strict=True))
    shared = Counter(candidate.video for candidate in listing.candidates)
    kept: list[Clip] = []
    problems: list[BadClip] = []
    for candidate in listing.candidates:
        try:
            facts = _facts_of(candidate, videos)
            kept.append(
                check_clip(candidate, facts, buckets or (video,), bool(buckets), frame_rate)
            )
        except BadClip as problem:
            problems.append(
                _with_clip_id(problem, candidate) if shared[candidate.video] > 1 else problem
            )
    return CheckedClips(
        kept=tuple(kept),
        bad=(*listing.bad, *(item for item in problems if item.reason != TOO_SHORT)),
        too_short=tuple(item for item in problems if item.reason == TOO_SHORT),
        notes=_notes(kept, videos),
    )


def _with_clip_id(problem: BadClip, candidate: Candidate) -> BadClip:
    """The problem with its clip's id: the name of a file with several clips does not say which of them it is."""
    if candidate.clip_id in problem.value or problem.file == candidate.source:
        return problem
    return BadClip(problem.file, problem.reason, f"{candidate.clip_id}: {problem.value}")


def _facts_of(candidate: Candidate, videos: Mapping[str, CheckedVideo]) -> VideoFacts:
    outcome = videos[candidate.video]
    if isinstance(outcome, BadClip):
        if outcome.reason == "video_missing":  # blame the file that names it
            raise BadClip(candidate.source, "video_missing", outcome.value)
        raise outcome
    return outcome


def _notes(kept: Sequence[Clip], videos: Mapping[str, CheckedVideo]) -> tuple[tuple[str, str], ...]:
    found = []
    for name in sorted({clip.video for clip in kept}):
        outcome = videos[name]
        found += [(name, note) for note in outcome.notes] if isinstance(outcome, VideoFacts) else []
    return tuple(found)


@as_bad_clip()
def check_clip(
    candidate: Candidate,
    facts: VideoFacts,
    sizes: Sequence[VideoConfig],
    has_buckets: bool,
    frame_rate: FrameRate = "constant",
) -> Clip:
    """Check one clip against the facts of its file and against its annotation.

    A list of an annotation may have one entry more than there are frames: the state after the last one.

    Args:
        candidate: the clip.
        facts: of its file.
        sizes: windows to choose from.
        has_buckets: the chosen one is named in the index.
        frame_rate: as for :func:`check_clips`.

    Raises:
        BadClip: also, with reason ``too_short``, for a sound clip without a window.
    """
    name, timeline = candidate.video, facts.timeline
    frames = range(facts.num_frames)
    if candidate.start_s is not None or candidate.end_s is not None:
        frames = frames_between(
            timeline, candidate.start_s, candidate.end_s, name, candidate.source
        )
    if candidate.num_frames is not None and candidate.num_frames != len(frames):
        value = (
            f"{counted(candidate.num_frames, 'frame')} according to {candidate.source}, "
            f"{'here is' if len(frames) == 1 else 'here are'} {len(frames)}"
        )
        raise BadClip(name, "annotation_mismatch", f"{candidate.clip_id} has {value}")
    for field, length in candidate.num_annotated.items():
        if length - len(frames) not in (0, 1):
            value = f"{field} has {counted(length, 'entry', 'entries')}, {name} has {counted(len(frames), 'frame')}"
            raise BadClip(candidate.source, "annotation_mismatch", value)
    rates: dict[float | None, tuple[float, Sequence[int]]] = {}
    for size in sizes:
        rate = size.fps if frame_rate == "resample" else None
        if rate not in rates:
            rates[rate] = _sample_frames(facts, frames, rate, candidate)
    chosen, (fps, numbers) = _choose_window(facts, sizes, rates, frame_rate, name)
    is_run = numbers[-1] - numbers[0] + 1 == len(numbers) == len(set(numbers))
    return Clip(
        clip_id=candidate.clip_id,
        split=candidate.split,
        video=name,
        captions=candidate.captions,
        num_frames=len(numbers),
        fps=fps,
        height=facts.height,
        width=facts.width,
        window_starts=window_starts(len(numbers), chosen.num_pixel_frames, chosen.window_stride),
        video_sha256=facts.sha256,
        bucket=chosen.size_name if has_buckets else None,
        first_frame=numbers[0],
        frame_numbers=None if is_run else tuple(numbers),
        entry_points=_entry_points(facts, frames),
    )


def _sample_frames(
    facts: VideoFacts, frames: range, rate: float | None, candidate: Candidate
) -> tuple[float, Sequence[int]]:
    """Frames per second of a clip, and the number in the file of each of its frames.

    Raises:
        BadClip: the rate is not constant, or all frames come after the gap at the file's end, and there is no rate
            to resample at.
    """
    name = candidate.video
    if rate is None:
        frames = frames[: max(0, facts.num_frames - facts.num_stray - frames.start)]
        if not frames:
            value = (
                f"the clip has none but the last frames of {name}, {facts.num_stray} after a gap, as a cut leaves "
                "them, and these are left out where the rate is constant"
            )
            raise BadClip(candidate.source, "clip_outside", value)
        return round(float(constant_rate(facts.timeline, frames, name)), 3), frames
    return rate, sample_at(facts.timeline, frames, rate, name)


def _choose_window(
    facts: VideoFacts,
    sizes: Sequence[VideoConfig],
    rates: Mapping[float | None, tuple[float, Sequence[int]]],
    frame_rate: FrameRate,
    name: str,
) -> tuple[VideoConfig, tuple[float, Sequence[int]]]:
    """The window that fits best among those that the clip fills, and the clip's frames at its rate.

    Raises:
        BadClip: with reason ``too_short``.
    """

    def sampled(size: VideoConfig) -> tuple[float, Sequence[int]]:
        return rates[size.fps if frame_rate == "resample" else None]

    filled = [size for size in sizes if size.num_pixel_frames <= len(sampled(size)[1])]
    longest = max(len(numbers) for _, numbers in rates.values())
    chosen = choose_bucket(longest, facts.height, facts.width, filled)
    if chosen is None:
        shortest = min(size.num_pixel_frames for size in sizes)
        taker = "one window" if len(sizes) == 1 else "the shortest bucket"
        value = f"{counted(longest, 'frame')}, {taker} takes {shortest}"
        raise BadClip(name, TOO_SHORT, value)
    return chosen, sampled(chosen)


def _entry_points(facts: VideoFacts, frames: range) -> tuple[EntryPoint, ...]:
    """Entry points of the file inside a clip, and the last one before it."""
    before = [entry for entry in facts.entry_points if entry[0] <= frames.start]
    inside = [entry for entry in facts.entry_points if frames.start < entry[0] < frames.stop]
    return (*before[-1:], *inside)


def check_video(root: Path, name: str, journal: Journal) -> VideoFacts:
    """Facts of a video: those in the journal, else those found by decoding it.

    Args:
        root: folder of the dataset.
        name: path of the file relative to it.
        journal: receives the outcome.

    Raises:
        BadClip: the video is missing or unusable.
        OSError: the volume does not give its content; the journal receives nothing.
    """
    _refuse_missing(root / name, name)
    outcome = journal.find(root, name)
    if outcome is None:
        try:
            with as_bad_clip():
                outcome = decode_fully(root / name, name)
        except BadClip as problem:
            read_through(root / name)
            outcome = problem
        journal.add(root, name, outcome)
    if isinstance(outcome, BadClip):
        raise outcome
    return outcome


def _refuse_missing(path: Path, name: str) -> None:
    try:
        status = path.stat()
    except ValueError:  # a name that no file can have
        status = None
    except OSError as error:
        if error.errno not in NO_SUCH_FILE:
            raise
        status = None
    if status is None:
        raise BadClip(name, "video_missing", f"its video {name} does not exist")
    if not stat.S_ISREG(status.st_mode):
        raise BadClip(name, "video_missing", f"its video {name} is no file")
