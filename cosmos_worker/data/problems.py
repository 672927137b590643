"""What can be wrong with one clip, and what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cosmos_worker.data.decoding import REENCODE, TONE_MAP
from cosmos_worker.errors import DataError

Reason = Literal[
    "annotation_broken",
    "annotation_mismatch",
    "action_broken",
    "camera_missing",
    "caption_missing",
    "caption_empty",
    "caption_not_utf8",
    "video_missing",
    "video_outside",
    "video_empty",
    "video_unreadable",
    "video_damaged",
    "high_dynamic_range",
    "clip_outside",
    "frame_count",
    "frame_size",
    "variable_frame_rate",
    "too_short",
]
TOO_SHORT: Reason = "too_short"
"""The one reason that does not make a clip bad: it has no window of the wanted length."""

REMEDIES: dict[Reason, str] = {
    "annotation_broken": "repair or remove the annotation",
    "annotation_mismatch": "make annotation and video agree or remove both",
    "action_broken": "repair the field, or remove it from the annotation: the training does not use it",
    "camera_missing": "choose another camera or remove the annotation",
    "caption_missing": "add the caption or remove the clip",
    "caption_empty": "write a caption or remove the clip",
    "caption_not_utf8": "save the file as UTF-8",
    "video_missing": "add the video or remove what names it",
    "video_outside": "name a file inside the dataset, relative to its root",
    "video_empty": REENCODE,
    "video_unreadable": REENCODE,
    "video_damaged": REENCODE,
    "high_dynamic_range": TONE_MAP,
    "clip_outside": "correct the times or remove the clip",
    "frame_count": REENCODE,
    "frame_size": REENCODE,
    "variable_frame_rate": "take frames at equal intervals (dataset.frameRate: Resample, which needs video.fps), "
    "re-encode it at a constant rate (ffmpeg -i OLD -r FPS -c:v libx264 NEW) or remove the clip",
    "too_short": "lower experiment.video.num_pixel_frames (or add a shorter bucket) or leave the clip out",
}
assert set(REMEDIES) == set(get_args(Reason))


class BadClip(DataError):  # noqa: N818 - it is also the record of a dropped clip
    """One clip cannot be used; the message names file, value and remedy."""

    def __init__(self, file: str, reason: Reason, value: str) -> None:
        self.file = file
        self.reason: Reason = reason
        self.value = value
        super().__init__(f"{file}: {value}; {REMEDIES[reason]}")

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.reason]


def read_text(path: Path, name: str) -> str:
    """Text of a UTF-8 file, with or without byte order mark.

    Raises:
        BadClip: not UTF-8, with the position and value of the first bad byte.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        value = f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise BadClip(name, "caption_not_utf8", value) from None
