"""The summary of a checked dataset as JSON, for summary.json and for programs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cosmos_worker.config.addresses import recorded
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.buckets import stretch
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.distortion import find_distortions, summarize_distortions
from cosmos_worker.data.held_out import HeldOut
from cosmos_worker.data.index import SPLITS, Clip
from cosmos_worker.storage.volumes import VIDEO_READER_VERSION, Volumes


@dataclass(frozen=True)
class Remarks:
    """Remarks on a dataset, beside the results of its clips."""

    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Pattern of files that name no clip → their number."""
    notes: tuple[str, ...] = ()
    """Sentences about choices of the layout, such as the split of a folder."""
    held_out: HeldOut | None = None
    """Episodes held out as validation data; None if validation_fraction is 0."""


def summarize(
    config: PrepareDatasetConfig, clips: CheckedClips, remarks: Remarks | None = None
) -> dict[str, Any]:
    """Counts of a checked dataset, as JSON."""
    remarks = remarks or Remarks()
    held_out = remarks.held_out
    dropped = Counter(problem.reason for problem in (*clips.bad, *clips.too_short))
    splits = {
        split: {
            "clips": sum(clip.split == split for clip in clips.kept),
            "windows": sum(len(clip.window_starts) for clip in clips.kept if clip.split == split),
        }
        for split in SPLITS
    }
    return {
        "video_reader": VIDEO_READER_VERSION,
        "layout": config.layout,
        "source": recorded(config.source.model_dump(mode="json", exclude_none=True)),
        "video": config.video.model_dump(mode="json"),
        "camera": config.camera,
        "camera_name": config.camera_name,
        "frame_rate": config.frame_rate,
        "clips": {
            "found": clips.num_clips,
            "kept": len(clips.kept),
            "bad": len(clips.bad),
            "too_short": len(clips.too_short),
        },
        "dropped": dict(sorted(dropped.items())),
        "splits": splits,
        "sizes": _histogram(f"{clip.height}x{clip.width}" for clip in clips.kept),
        "fps": _histogram(f"{clip.fps:g}" for clip in clips.kept),
        "num_frames": _histogram(str(clip.num_frames) for clip in clips.kept),
        "captions": len({text for clip in clips.kept for text in clip.captions}),
        "captions_per_clip": _histogram(str(len(clip.captions)) for clip in clips.kept),
        "distortion": summarize_distortions(config.fit, find_distortions(config, clips.kept)),
        "passed_over": dict(remarks.passed_over),
        "notes": list(remarks.notes),
        **({"held_out": asdict(held_out)} if held_out is not None else {}),
        **({"buckets": summarize_buckets(config.buckets, clips.kept)} if config.buckets else {}),
        **({"resampled": _resampled(clips.kept)} if config.frame_rate == "resample" else {}),
    }


def _resampled(kept: Sequence[Clip]) -> dict[str, int]:
    """Number of clips whose frames were resampled, and of the frames that are repeated and left out in them."""
    changed = [clip.frame_numbers for clip in kept if clip.frame_numbers is not None]
    distinct = [len(set(numbers)) for numbers in changed]
    spans = [numbers[-1] - numbers[0] + 1 for numbers in changed]
    return {
        "clips": len(changed),
        "repeated": sum(map(len, changed)) - sum(distinct),
        "left_out": sum(spans) - sum(distinct),
    }


def summarize_buckets(buckets: Sequence[VideoConfig], kept: Sequence[Clip]) -> dict[str, Any]:
    """Clips, windows of each split and largest change of aspect ratio of every bucket."""
    found = {}
    for bucket in buckets:
        own = [clip for clip in kept if clip.bucket == bucket.size_name]
        largest = max((stretch(clip.height, clip.width, bucket) for clip in own), default=1)
        found[bucket.size_name] = {
            "clips": len(own),
            "windows": {
                split: sum(len(clip.window_starts) for clip in own if clip.split == split)
                for split in SPLITS
            },
            "largest_stretch": round(float(largest), 3),
        }
    return found


def _histogram(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def portable_root(root: Path, folder: Path, volumes: Volumes) -> str:
    """The dataset's root as the summary names it: relative to the index where both lie in volumes.

    A volume that is mounted elsewhere later, or with its neighbours moved to another machine, still fits then.
    """
    roots = [volume.resolve() for volume in volumes.roots.values()]
    root, folder = root.resolve(), folder.resolve()
    if all(any(path.is_relative_to(volume) for volume in roots) for path in (root, folder)):
        return os.path.relpath(root, folder)
    return str(root)
