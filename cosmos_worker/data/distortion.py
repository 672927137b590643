"""Clips whose aspect ratio is not that of their window, and what becomes of their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cosmos_worker.config import Fit, PrepareDatasetConfig
from cosmos_worker.data.buckets import bucket_sizes, stretch
from cosmos_worker.data.index import Clip
from cosmos_worker.options import VideoConfig

TOLD_ABOVE = Fraction(11, 10)
"""Factor between the aspect ratios from which on a clip is told: the reference's own (4:3 into 320x256) is 1.07."""
MAX_SIZES = 20
"""Sizes that the summary lists."""


@dataclass(frozen=True)
class Distortion:
    """One clip and the window that it is brought to."""

    clip: Clip
    window: VideoConfig
    fit: Fit

    @property
    def factor(self) -> Fraction:
        """The larger of both aspect ratios divided by the smaller, at least 1."""
        return stretch(self.clip.height, self.clip.width, self.window)

    @property
    def percent(self) -> float:
        """By how much a stretched picture grows in one direction; the share that is cut, or black, otherwise."""
        factor = float(self.factor)
        return 100 * (factor - 1 if self.fit == "stretch" else 1 - 1 / factor)

    @property
    def is_widened(self) -> bool:
        """Whether the window is the wider of both."""
        return self.window.width * self.clip.height > self.clip.width * self.window.height

    @property
    def words(self) -> str:
        """What becomes of the picture, such as: stretched by 78 % in width."""
        percent = f"{self.percent:.0f} %"
        if self.fit == "stretch":
            return f"stretched by {percent} in {'width' if self.is_widened else 'height'}"
        if self.fit == "crop":
            return f"{percent} of the picture is cut ({'top and bottom' if self.is_widened else 'left and right'})"
        return f"{percent} is black ({'left and right' if self.is_widened else 'top and bottom'})"

    @property
    def size(self) -> str:
        """Rows x columns of the clip as it is shown."""
        return f"{self.clip.height}x{self.clip.width}"

    @property
    def window_size(self) -> str:
        """Rows x columns of the window."""
        return f"{self.window.height}x{self.window.width}"


def find_distortions(config: PrepareDatasetConfig, kept: Iterable[Clip]) -> list[Distortion]:
    """Clips whose aspect ratio differs from their window's by more than 10 %, the worst first."""
    windows = bucket_sizes(config.video, config.buckets)
    found = [Distortion(clip, windows[clip.bucket], config.fit) for clip in kept]
    told = [one for one in found if one.factor > TOLD_ABOVE]
    return sorted(told, key=lambda one: (-one.factor, one.clip.clip_id))


def summarize_distortions(fit: Fit, distortions: Sequence[Distortion]) -> dict[str, Any]:
    """Number of clips, the largest distortion, and each kind of size with an example, as JSON."""
    by_size: dict[tuple[str, str], list[Distortion]] = {}
    for one in distortions:
        by_size.setdefault((one.size, one.window_size), []).append(one)
    return {
        "fit": fit,
        "clips": len(distortions),
        "largest": distortions[0].words if distortions else None,
        "sizes": [
            {
                "size": size,
                "window": window,
                "clips": len(several),
                "what": several[0].words,
                "example": several[0].clip.clip_id,
            }
            for (size, window), several in list(by_size.items())[:MAX_SIZES]
        ],
    }
