"""All that decoding a whole video file tells, with every frame looked at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Self

from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video import entry_points as entries
from cosmos_worker.data.video.decoding import (
    INTERLACED,
    Decoder,
    UnreadableVideo,
    display_turn,
    frame_notes,
    refuse_colours,
    refuse_other_turn,
)
from cosmos_worker.data.video.entry_points import (
    EntryPoint,
    Shown,
)
from cosmos_worker.data.video.frame_times import (
    Timeline,
    stray_frames,
)
from cosmos_worker.data.video.upright import (
    UPRIGHT,
    size_upright,
)
from cosmos_worker.storage.volumes import sha256_of_file

LOST = "begins with {} frames that need others before them, as a cut leaves them; players do not show them"
STRAY = "ends with {} frames after a gap, as a cut leaves them; left out where the rate is constant"


@dataclass(frozen=True)
class VideoFacts:
    """What decoding a whole file tells."""

    timeline: Timeline
    height: int
    """Rows as shown."""
    width: int
    """Columns as shown."""
    sha256: str
    entry_points: tuple[EntryPoint, ...] = ()
    notes: tuple[str, ...] = ()
    """What is done with the file that its author may not expect, one short sentence each."""
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
    """What is found out while all frames of a file pass by."""

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
        """Look at the next frame.

        Raises:
            BadClip: a frame that is damaged, of another size, without a time, or not later than the one before.
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
            raise BadClip(self.name, "video_damaged", f"frame {number} is damaged")
        refuse_other_turn(path, number, turn, self._turn)
        if size != self.size:
            value = (
                f"frame {number} is {size[0]}x{size[1]}, the video {self.size[0]}x{self.size[1]}"
            )
            raise BadClip(self.name, "frame_size", value)
        if frame.pts is None:
            raise BadClip(self.name, "video_damaged", f"frame {number} has no timestamp")
        if self.times and frame.pts <= self.times[-1]:
            value = f"frame {number} has no later time than the one before"
            raise BadClip(self.name, "video_damaged", value)
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
        """The times, once all frames are there.

        Raises:
            BadClip: no frames, or a single one without a duration.
        """
        if not self.times:
            raise BadClip(self.name, "video_empty", "0 frames")
        tick = decoder.tick
        timeline = Timeline(tuple(self.times), tick, max(1, self.last_duration))
        if self.last_duration > 0 or len(self.times) > 1:
            lasts = self.last_duration or timeline.usual_gap
        elif decoder.average_rate > 0:
            lasts = round(1 / (decoder.average_rate * tick))
        else:
            raise BadClip(self.name, "variable_frame_rate", "no frame rate in it")
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
        BadClip: the file is empty, damaged, of changing size, or its colours cannot be converted.
        OSError: the volume does not give its content.
    """
    if path.stat().st_size == 0:
        raise BadClip(name, "video_empty", "0 bytes")
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
        after = (
            f" after {num_decoded} of {claimed or 'unknown'} frames" if error.is_decoders else ""
        )
        raise BadClip(name, error.kind, error.value + after) from None
    proven: tuple[EntryPoint, ...] = ()
    if timeline.num_frames >= min_frames:
        proven = entries.prove_entry_points(path, survey.candidates, survey.checksums)
    num_stray = stray_frames(timeline)
    notes = [
        *survey.notes,
        *([LOST.format(num_lost)] if num_lost else []),
        *([STRAY.format(num_stray)] if num_stray else []),
    ]
    return VideoFacts(timeline, *survey.size, sha256_of_file(path), proven, tuple(notes), num_stray)


def _count_lost(decoder: Decoder, timeline: Timeline, name: str) -> int:
    """Frames at the start of a cut file that lack what they were made from, so that players leave them out.

    What a container claims includes those, and those that its edit list leaves out.

    Raises:
        BadClip: other frames are missing, or there are too many.
        UnreadableVideo: packets that cannot be read.
    """
    claimed = decoder.num_claimed
    if not claimed or claimed == timeline.num_frames:
        return 0
    with Decoder(decoder.path, with_edit_list=False) as whole, Decoder(decoder.path) as edited:
        num_stored, stored = len(whole.packet_times()), edited.packet_times()
    lost = [time for time in stored if time is not None and time < timeline.times[0]]
    if num_stored != claimed or len(stored) - len(lost) != timeline.num_frames:
        value = f"{timeline.num_frames} frames can be decoded, the file claims {claimed}"
        raise BadClip(name, "frame_count", value)
    return len(lost)
