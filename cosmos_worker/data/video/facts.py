"""Facts of a whole video file, found by decoding every frame once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cosmos_worker.data.video import entry_points as entries
from cosmos_worker.data.video.decoding import Decoder
from cosmos_worker.data.video.entry_points import (
    EntryPoint,
    Shown,
)
from cosmos_worker.data.video.frame_times import (
    Timeline,
    stray_frames,
)
from cosmos_worker.data.video.picture import (
    INTERLACED,
    UPRIGHT,
    display_turn,
    frame_notes,
    refuse_colours,
    refuse_other_turn,
    size_upright,
)
from cosmos_worker.data.video.problems import UnreadableVideo, UnusableVideo
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import sha256_of_file


@dataclass(frozen=True)
class VideoFacts:
    """Times, size, digest and entry points of a whole file."""

    timeline: Timeline
    height: int
    """Rows as shown."""
    width: int
    """Columns as shown."""
    sha256: str
    entry_points: tuple[EntryPoint, ...] = ()
    notes: tuple[str, ...] = ()
    """Short sentences about the file being read in a way that its author may not expect."""
    num_stray: int = 0
    """Frames at the end that come after a gap, see :func:`stray_frames`."""

    @property
    def num_frames(self) -> int:
        """Frames of the file."""
        return self.timeline.num_frames

    def as_json(self) -> dict[str, Any]:
        """The facts as JSON."""
        return {
            "timeline": self.timeline.as_json(),
            "height": self.height,
            "width": self.width,
            "sha256": self.sha256,
            "entry_points": self.entry_points,
            "notes": self.notes,
            "num_stray": self.num_stray,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read :meth:`as_json`; raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            Timeline.from_json(value["timeline"]),
            int(value["height"]),
            int(value["width"]),
            str(value["sha256"]),
            tuple((int(number), int(time)) for number, time in value["entry_points"]),
            tuple(map(str, value["notes"])),
            int(value["num_stray"]),
        )


class _Survey:
    """Collects the facts of a file while its frames are decoded one after another."""

    def __init__(self, name: str, decoder: Decoder, min_frames: int, spacing: int) -> None:
        self.name = name
        self.times: list[int] = []
        self.size = (0, 0)
        self._turn = UPRIGHT
        self.last_duration = 0
        self.notes = dict.fromkeys(decoder.notes)
        self.candidates: list[EntryPoint] = []
        self.checksums: list[int] = []
        self._is_long = decoder.num_claimed == 0 or decoder.num_claimed >= min_frames
        self._spacing = spacing

    def add(self, shown: Shown) -> None:
        """Check the next frame and note its facts.

        Raises:
            UnusableVideo: a frame that is damaged, of another size, without a time, or not later than the one before.
            UnreadableVideo: a frame that is turned otherwise, or whose colours cannot be converted.
        """
        frame, number, path = shown.frame, shown.number, shown.decoder.path
        turn = display_turn(path, frame)
        size = size_upright(frame.height, frame.width, turn)
        refuse_colours(path, frame)
        if number == 0:
            self.size, self._turn = size, turn
            self.notes.update(dict.fromkeys(frame_notes(frame)))
            shown.rgb()  # fails here if it ever does
        if frame.is_corrupt:
            raise UnusableVideo(self.name, "video_damaged", f"frame {number} is damaged")
        refuse_other_turn(path, number, turn, self._turn)
        if size != self.size:
            value = (
                f"frame {number} is {size[0]}x{size[1]}, the video {self.size[0]}x{self.size[1]}"
            )
            raise UnusableVideo(self.name, "frame_size", value)
        if frame.pts is None:
            raise UnusableVideo(self.name, "video_damaged", f"frame {number} has no timestamp")
        if self.times and frame.pts <= self.times[-1]:
            value = f"frame {number} has no later time than the one before"
            raise UnusableVideo(self.name, "video_damaged", value)
        self.times.append(frame.pts)
        self.last_duration = frame.duration or 0
        if frame.interlaced_frame:
            self.notes[INTERLACED] = None
        if self._is_long:
            self._prepare_entry(shown)

    def _prepare_entry(self, shown: Shown) -> None:
        self.checksums.append(entries.checksum(shown))
        last = self.candidates[-1][0] if self.candidates else 0
        if shown.frame.key_frame and shown.number - last >= self._spacing:
            self.candidates.append((shown.number, shown.frame.pts))

    def timeline(self, decoder: Decoder) -> Timeline:
        """The presentation times of all frames that were added.

        Raises:
            UnusableVideo: no frames, or a single one without a duration.
        """
        if not self.times:
            raise UnusableVideo(self.name, "video_empty", "0 frames")
        tick = decoder.tick
        timeline = Timeline(tuple(self.times), tick, max(1, self.last_duration))
        if self.last_duration > 0 or len(self.times) > 1:
            lasts = self.last_duration or timeline.usual_gap
        elif decoder.average_rate > 0:
            lasts = round(1 / (decoder.average_rate * tick))
        else:
            raise UnusableVideo(self.name, "variable_frame_rate", "no frame rate in it")
        return Timeline(timeline.times, tick, max(1, lasts))


def decode_fully(
    path: Path, name: str, min_frames: int = entries.MIN_FRAMES, spacing: int = entries.SPACING
) -> VideoFacts:
    """Decode all frames of a file and check count, damage, sizes and times.

    Args:
        path: the file.
        name: how messages call it.
        min_frames: shorter files get no entry points.
        spacing: fewest frames between entry points.

    Raises:
        UnusableVideo: the file is empty, damaged, of changing size, or its colours cannot be converted.
        OSError: the volume does not give its content.
    """
    if path.stat().st_size == 0:
        raise UnusableVideo(name, "video_empty", "0 bytes")
    num_decoded, claimed = 0, 0
    try:
        with Decoder(path) as decoder:
            claimed = decoder.num_claimed
            survey = _Survey(name, decoder, min_frames, spacing)
            for frame in decoder.frames():
                survey.add(Shown(num_decoded, frame, decoder))
                num_decoded += 1
            timeline = survey.timeline(decoder)
            num_lost = _count_lost(decoder, timeline, name)
    except UnreadableVideo as error:
        after = f" after {num_decoded} of {_frames(claimed)}" if error.is_of_decoder else ""
        raise UnusableVideo(name, error.reason, error.value + after) from None
    proven: tuple[EntryPoint, ...] = ()
    if timeline.num_frames >= min_frames:
        proven = entries.prove_entry_points(path, survey.candidates, survey.checksums)
    num_stray = stray_frames(timeline)
    notes = [
        *survey.notes,
        *([_describe_lost(num_lost)] if num_lost else []),
        *([_describe_stray(num_stray)] if num_stray else []),
    ]
    return VideoFacts(timeline, *survey.size, sha256_of_file(path), proven, tuple(notes), num_stray)


def _frames(claimed: int) -> str:
    return counted(claimed, "frame") if claimed else "unknown frames"


def _describe_lost(number: int) -> str:
    which = "that need others before them" if number > 1 else "that needs others before it"
    them = "them" if number > 1 else "it"
    return f"begins with {counted(number, 'frame')} {which}, as a cut leaves {them}; players do not show {them}"


def _describe_stray(number: int) -> str:
    them = "them" if number > 1 else "it"
    frames = counted(number, "frame")
    return f"ends with {frames} after a gap, as a cut leaves {them}; left out where the rate is constant"


def _count_lost(decoder: Decoder, timeline: Timeline, name: str) -> int:
    """Number of frames at the start of a cut file whose reference frames are missing, so that players leave them out.

    The count that a container claims includes these, and those that its edit list leaves out.

    Raises:
        UnusableVideo: other frames are missing, or there are too many.
        UnreadableVideo: packets that cannot be read.
    """
    claimed = decoder.num_claimed
    if not claimed or claimed == timeline.num_frames:
        return 0
    with Decoder(decoder.path, with_edit_list=False) as whole, Decoder(decoder.path) as edited:
        num_stored, stored = len(whole.packet_times()), edited.packet_times()
    lost = [time for time in stored if time is not None and time < timeline.times[0]]
    if num_stored != claimed or len(stored) - len(lost) != timeline.num_frames:
        value = f"{counted(timeline.num_frames, 'frame')} can be decoded, the file claims {claimed}"
        raise UnusableVideo(name, "frame_count", value)
    return len(lost)
