"""Pictures whose aspect ratio is not that of their window: clips of a dataset, and images to continue from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.buckets import bucket_sizes
from cosmos_worker.data.index import Clip

REPORTED_ABOVE = Fraction(11, 10)
"""Factor between the aspect ratios above which a clip is reported; the reference's own (4:3 into 320x256) is 1.07."""
MAX_SIZES = 20
"""Sizes that the summary lists."""


@dataclass(frozen=True)
class Distortion:
    """One picture and the window that it is brought to; sizes in pixels, of the picture as it is shown."""

    name: str
    """Id of the clip, or the file."""
    height: int
    width: int
    window_height: int
    window_width: int
    fit: Fit

    @property
    def factor(self) -> Fraction:
        """The larger of both aspect ratios divided by the smaller, at least 1."""
        ratio = Fraction(self.width * self.window_height, self.height * self.window_width)
        return max(ratio, 1 / ratio)

    @property
    def is_reported(self) -> bool:
        """True if the factor is above :data:`REPORTED_ABOVE`."""
        return self.factor > REPORTED_ABOVE

    @property
    def percent(self) -> float:
        """Percent by which Stretch enlarges one direction, that Crop cuts off the picture, or that Pad leaves black."""
        factor = float(self.factor)
        return 100 * (factor - 1 if self.fit == "stretch" else 1 - 1 / factor)

    @property
    def is_widened(self) -> bool:
        """True if the window is wider than the picture, at equal height."""
        return self.window_width * self.height > self.width * self.window_height

    @property
    def words(self) -> str:
        """The effect on the picture in words, such as ``stretched by 78 % in width``."""
        percent = f"{self.percent:.0f} %"
        if self.fit == "stretch":
            return f"stretched by {percent} in {'width' if self.is_widened else 'height'}"
        if self.fit == "crop":
            return f"{percent} of the picture is cut ({'top and bottom' if self.is_widened else 'left and right'})"
        return f"{percent} is black ({'left and right' if self.is_widened else 'top and bottom'})"

    @property
    def size(self) -> str:
        """Rows x columns of the picture."""
        return f"{self.height}x{self.width}"

    @property
    def window_size(self) -> str:
        """Rows x columns of the window."""
        return f"{self.window_height}x{self.window_width}"


def describe_distortion(one: Distortion, remedy: str) -> str | None:
    """The sentence for a picture that Stretch distorts; None = it distorts too little to be reported.

    Args:
        one: the picture in its window.
        remedy: what to do about it, such as: set dataset.fit to Crop or Pad.
    """
    if one.fit != "stretch" or not one.is_reported:
        return None
    return (
        f"{one.width}x{one.height} is stretched to {one.window_width}x{one.window_height}, which distorts by "
        f"{one.percent:.0f}%; to keep the aspect ratio, {remedy}"
    )


def find_distortions(config: PrepareDatasetConfig, kept: Iterable[Clip]) -> list[Distortion]:
    """Clips whose aspect ratio differs from their window's by more than 10 %, the worst first."""
    windows = bucket_sizes(config.video, config.buckets)
    found = [
        Distortion(clip.clip_id, clip.height, clip.width, window.height, window.width, config.fit)
        for clip in kept
        for window in [windows[clip.bucket]]
    ]
    reported = [one for one in found if one.is_reported]
    return sorted(reported, key=lambda one: (-one.factor, one.name))


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
                "example": several[0].name,
            }
            for (size, window), several in list(by_size.items())[:MAX_SIZES]
        ],
    }
