"""Reasons for which a video file cannot be used, and the two errors that carry them.

:class:`UnreadableVideo` is raised while a file is decoded and names its path on this machine. :class:`UnusableVideo`
is the result of checking a whole file, or the part of it that is a clip, and names the file as its dataset does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cosmos_worker.errors import DataError

REENCODE = "re-encode it (ffmpeg -i OLD -c:v libx264 -pix_fmt yuv420p NEW) or remove the clip"
COPY_AGAIN = f"copy or fetch it again if it is cut off, {REENCODE}"
TONE_MAP = (
    "convert it to standard dynamic range (ffmpeg -i OLD -vf zscale=t=linear:npl=100,format=gbrpf32le,"
    "tonemap=hable,zscale=t=bt709:m=bt709:p=bt709:r=tv,format=yuv420p -c:v libx264 NEW) or remove the clip"
)

UnreadableReason = Literal["video_unreadable", "high_dynamic_range"]
"""Reasons for which a file does not decode to frames."""
VideoReason = Literal[
    UnreadableReason,
    "video_empty",
    "video_damaged",
    "clip_outside",
    "frame_count",
    "frame_size",
    "variable_frame_rate",
]
"""Reasons for which a file, or a part of it, is no clip."""
REMEDIES: dict[VideoReason, str] = {
    "video_unreadable": COPY_AGAIN,
    "high_dynamic_range": TONE_MAP,
    "video_empty": COPY_AGAIN,
    "video_damaged": COPY_AGAIN,
    "clip_outside": "correct the times or remove the clip",
    "frame_count": REENCODE,
    "frame_size": REENCODE,
    "variable_frame_rate": "take frames at equal intervals (dataset.frameRate: Resample, which needs video.fps), "
    "re-encode it at a constant rate (ffmpeg -i OLD -r FPS -c:v libx264 NEW) or remove the clip",
}
"""Advice for each reason."""
assert set(REMEDIES) == set(get_args(VideoReason))


class UnreadableVideo(DataError):  # noqa: N818 - named after what it is about
    """A file that does not decode to frames.

    Attributes:
        value: why, in one line.
        reason: decides what the message advises.
        is_of_decoder: the decoder gave up; otherwise the file was refused before it was decoded.
    """

    def __init__(
        self,
        path: Path,
        value: str,
        reason: UnreadableReason = "video_unreadable",
        *,
        is_of_decoder: bool = False,
    ) -> None:
        self.value = value
        self.reason: UnreadableReason = reason
        self.is_of_decoder = is_of_decoder
        super().__init__(f"{path}: cannot be decoded as video: {value}; {REMEDIES[reason]}")


class UnusableVideo(DataError):  # noqa: N818 - named after what it is about
    """A file, or a part of one, that no clip can be made of.

    Attributes:
        file: name of the file that is to be corrected, as the dataset has it.
        reason: decides what the message advises.
        value: what was found, in one line.
    """

    def __init__(self, file: str, reason: VideoReason, value: str) -> None:
        self.file, self.value = file, value
        self.reason: VideoReason = reason
        super().__init__(f"{file}: {value}; {REMEDIES[reason]}")
