"""What can be wrong with one clip, and what to do about each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cosmos_worker.config.captions import (
    TextError,
    normalise_caption,
)
from cosmos_worker.data.text_files import (
    MAX_BYTES,
    FileError,
    brief,
    printable,
    read_text_file,
)
from cosmos_worker.data.video.decoding import (
    COPY_AGAIN,
    REENCODE,
    TONE_MAP,
)
from cosmos_worker.errors import DataError

Reason = Literal[
    "annotation_broken",
    "annotation_mismatch",
    "action_broken",
    "camera_missing",
    "episode_missing",
    "split_missing",
    "caption_missing",
    "caption_empty",
    "caption_not_utf8",
    "caption_broken",
    "file_unreadable",
    "name_unusable",
    "clip_id_repeated",
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
    "episode_missing": "fetch the dataset again, or correct total_episodes",
    "split_missing": "name it in splits, or remove splits to train on all episodes",
    "caption_missing": "add the caption or remove the clip",
    "caption_empty": "write a caption or remove the clip",
    "caption_not_utf8": "save the file as UTF-8",
    "caption_broken": "write the caption anew or remove the clip",
    "file_unreadable": "put a file there that can be read, or remove it",
    "name_unusable": "rename the file, or correct what names it",
    "clip_id_repeated": "rename one of them, or give each an episode_id of its own",
    "video_missing": "add the video or remove what names it",
    "video_outside": "name a file inside the dataset, relative to its root",
    "video_empty": COPY_AGAIN,
    "video_unreadable": COPY_AGAIN,
    "video_damaged": COPY_AGAIN,
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
        self.file = printable(file)
        self.reason: Reason = reason
        self.value = printable(value)
        super().__init__(f"{self.file}: {self.value}; {REMEDIES[reason]}")

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.reason]


def read_text(path: Path, name: str, max_bytes: int = MAX_BYTES) -> str:
    """Text of a file that describes clips: UTF-8, or UTF-16 with a byte order mark; lines end with LF.

    Args:
        path: the file.
        name: how messages call it.
        max_bytes: larger files are refused.

    Raises:
        BadClip: another encoding, with the position of the first bad byte; or a file that cannot be read.
        OSError: the volume does not give its content.
    """
    try:
        return read_text_file(path, max_bytes)
    except FileError as error:
        raise BadClip(name, "file_unreadable", str(error)) from None
    except TextError as error:
        raise BadClip(name, "caption_not_utf8", str(error)) from None


def read_caption(text: str, name: str, where: str) -> str:
    """A caption in the form that is embedded.

    Args:
        text: as a file or document has it.
        name: how messages call the file.
        where: how they call the place in it, such as texts[0].

    Raises:
        BadClip: no text, or characters that no encoding can hold.
    """
    try:
        caption = normalise_caption(text)
    except TextError as error:
        raise BadClip(name, "caption_broken", f"{where} has {error}") from None
    if not caption:
        raise BadClip(name, "caption_empty", f"{where} is {brief(text)}")
    return caption
