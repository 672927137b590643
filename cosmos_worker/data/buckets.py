"""The bucket of a clip: windows of one size and length are trained on together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.index import Window
from cosmos_worker.errors import DataError

Sizes = dict[str | None, VideoConfig]
"""Bucket as the index names it → its windows; without buckets the one entry is None."""


def bucket_sizes(video: VideoConfig, buckets: Sequence[VideoConfig]) -> Sizes:
    """The kinds of windows by the name that the index has for them."""
    return {bucket.size_name: bucket for bucket in buckets} if buckets else {None: video}


def choose_bucket(
    num_frames: int, height: int, width: int, buckets: Sequence[VideoConfig]
) -> VideoConfig | None:
    """The bucket that fits a clip best, among those whose window it can fill; None if there is none.

    The closest aspect ratio, since windows are resized without keeping it; then the longest window; then the closest
    number of pixels; then the first in the list. Exact arithmetic: every machine chooses the same.

    Args:
        num_frames: of the clip.
        height: its rows in pixels.
        width: its columns in pixels.
        buckets: to choose from.
    """
    filled = [bucket for bucket in buckets if bucket.num_pixel_frames <= num_frames]
    return min(
        filled,
        key=lambda bucket: (
            stretch(height, width, bucket),
            -bucket.num_pixel_frames,
            _factor(Fraction(height * width, bucket.height * bucket.width)),
        ),
        default=None,
    )


def stretch(height: int, width: int, video: VideoConfig) -> Fraction:
    """Factor, at least 1, by which the aspect ratio of a clip changes in a window of this size."""
    return _factor(Fraction(width * video.height, height * video.width))


def _factor(ratio: Fraction) -> Fraction:
    return max(ratio, 1 / ratio)


def group_windows(
    windows: Iterable[Window], sizes: Sizes, where: str
) -> dict[str | None, list[Window]]:
    """The windows of each bucket, in the order of the buckets and of the index; some may have none.

    Args:
        windows: of the index.
        sizes: of :func:`bucket_sizes`.
        where: names the index in messages.

    Raises:
        DataError: the index was made with other buckets.
    """
    groups: dict[str | None, list[Window]] = {name: [] for name in sizes}
    for window in windows:
        if window.bucket not in groups:
            has = f"is of bucket {window.bucket}" if window.bucket else "is of no bucket"
            wanted = ", ".join(name or "none" for name in sizes)
            raise DataError(
                f"{where}: window {window.window_id} {has}, the experiment's buckets are: {wanted}; "
                "run prepare-dataset and the stages after it with these"
            )
        groups[window.bucket].append(window)
    return groups
