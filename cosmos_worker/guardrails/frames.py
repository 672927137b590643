"""What happens to the frames of a video between the sampling and the file: judged, then blurred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.guardrails.faces import FaceBlur
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.guardrails.video import VideoFilter


@dataclass(frozen=True)
class Seen:
    """A video that may be written.

    Attributes:
        frames_THWC: every frame, RGB.
        num_blurred: frames in which a face was blurred; None = nothing looked for faces.
    """

    frames_THWC: NDArray[np.uint8]
    num_blurred: int | None = None


@dataclass(frozen=True)
class FrameGuards:
    """What looks at the frames of a video before it is written.

    Attributes:
        judge: says which are safe.
        face_blur: blurs the faces of those that are; None = nothing does.
    """

    judge: VideoFilter
    face_blur: FaceBlur | None

    def apply(self, frames_THWC: NDArray[np.uint8]) -> Blocked | Seen:
        """Judge, then blur.

        Args:
            frames_THWC: every frame, RGB.

        Returns:
            What is wrong with the video, or what may be written.

        Raises:
            DataError: a frame that cannot be judged, or whose faces cannot be found.
        """
        verdict = self.judge.check(frames_THWC)
        if verdict is not None:
            return verdict
        if self.face_blur is None:
            return Seen(frames_THWC)
        return Seen(*self.face_blur.blur(frames_THWC))
