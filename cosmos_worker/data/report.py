"""What prepare-dataset tells: the summary for programs, the report for people, and whether to go on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cosmos_worker.config import PrepareDatasetConfig
from cosmos_worker.data.buckets import stretch
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.index import SPLITS, Clip
from cosmos_worker.data.problems import BadClip
from cosmos_worker.errors import DataError
from cosmos_worker.layout import VIDEO_READER_VERSION, Volumes
from cosmos_worker.options import VideoConfig

NUM_EXAMPLES = 3
"""Dropped clips that an error message names; the report names all."""


def summarize(config: PrepareDatasetConfig, clips: CheckedClips) -> dict[str, Any]:
    """Counts of a checked dataset, as JSON."""
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
        "source": config.source.model_dump(mode="json", exclude_none=True),
        "video": config.video.model_dump(mode="json"),
        "camera": config.camera,
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
        **({"buckets": summarize_buckets(config.buckets, clips.kept)} if config.buckets else {}),
        **({"resampled": _resampled(clips.kept)} if config.frame_rate == "resample" else {}),
    }


def _resampled(kept: Sequence[Clip]) -> dict[str, int]:
    """Clips whose frames are not those of the file one after another, and how many of these differ."""
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


def render_report(config: PrepareDatasetConfig, root: Path, clips: CheckedClips) -> str:
    """The report in Markdown: what was kept, and every dropped clip with its reason and remedy."""
    summary = summarize(config, clips)
    counts = summary["clips"]
    lines = [
        "# Dataset check",
        "",
        f"{root}, layout {config.layout}: {counts['found']} clips, {counts['kept']} kept, "
        f"{counts['bad']} unusable, {counts['too_short']} shorter than "
        f"{'every bucket' if config.buckets else 'the window'}.",
        "",
        *_windows(config, summary),
        "",
        "| split | clips | windows |",
        "|---|---|---|",
        *(f"| {name} | {n['clips']} | {n['windows']} |" for name, n in summary["splits"].items()),
        "",
        f"- sizes: {_counts(summary['sizes'])}",
        f"- frames per second: {_counts(summary['fps'])}",
        f"- frames per clip: {_counts(summary['num_frames'])}",
        f"- distinct captions: {summary['captions']}",
        *_resampled_line(summary),
        "",
        *_notes_table(clips.notes),
        *_dropped_table("Unusable clips", clips.bad),
        *_dropped_table("Clips shorter than the window", clips.too_short),
    ]
    return "\n".join(lines)


def _windows(config: PrepareDatasetConfig, summary: dict[str, Any]) -> list[str]:
    """What a window is; with buckets what there is of each."""
    video = config.video
    if not config.buckets:
        return [
            f"A window is {video.num_pixel_frames} frames, every {video.window_stride} frames, resized to "
            f"{video.height}x{video.width} (height x width) without keeping the aspect ratio."
        ]
    rows = [
        f"| {name} | {bucket.window_stride} | {n['clips']} | "
        f"{' | '.join(str(n['windows'][split]) for split in SPLITS)} | {n['largest_stretch']:g} |"
        for bucket in config.buckets
        for name, n in [(bucket.size_name, summary["buckets"][bucket.size_name])]
    ]
    return [
        "Each clip is in the bucket (frames x height x width) that fits it best. A window is resized to it without "
        "keeping the aspect ratio; the largest stretch is the factor by which that of a clip changes.",
        "",
        f"| bucket | every .. frames | clips | {' windows | '.join(SPLITS)} windows | largest stretch |",
        "|---|---|---|---|---|---|---|",
        *rows,
        f"| dropped: fill no bucket | | {summary['clips']['too_short']} | | | | |",
    ]


def _resampled_line(summary: dict[str, Any]) -> list[str]:
    found = summary.get("resampled")
    if found is None:
        return []
    return [
        f"- frames taken at equal intervals: {found['clips']} clips changed, {found['repeated']} frames repeated, "
        f"{found['left_out']} left out"
    ]


def _notes_table(notes: Sequence[tuple[str, str]]) -> list[str]:
    if not notes:
        return []
    rows = [f"| {_cell(file)} | {_cell(note)} |" for file, note in notes]
    return ["## Read in a way to know of", "", "| file | note |", "|---|---|", *rows, ""]


def _counts(histogram: dict[str, int], limit: int = 12) -> str:
    common = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{value} ({number} clips)" for value, number in common[:limit]) or "none"
    return f"{shown} and {len(common) - limit} more" if len(common) > limit else shown


def _dropped_table(title: str, problems: Sequence[BadClip]) -> list[str]:
    if not problems:
        return []
    rows = [
        f"| {_cell(problem.file)} | {problem.reason} | {_cell(problem.value)} | {problem.remedy} |"
        for problem in problems
    ]
    head = ["| file | reason | value | remedy |", "|---|---|---|---|"]
    return [f"## {title} ({len(problems)})", "", *head, *rows, ""]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def find_failure(
    config: PrepareDatasetConfig, root: Path, clips: CheckedClips, report: Path
) -> DataError | None:
    """The error that stops the job, if too many clips are bad or too few windows are left."""
    num_bad, num_clips = len(clips.bad), clips.num_clips
    if num_bad > config.max_bad_fraction * num_clips:
        first = "; ".join(f"({n}) {bad}" for n, bad in enumerate(clips.bad[:NUM_EXAMPLES], start=1))
        return DataError(
            f"{root}: {num_bad} of {num_clips} clips ({num_bad / num_clips:.1%}) are unusable, max_bad_fraction "
            f"allows {config.max_bad_fraction:.1%}; repair or remove them (all in {report}) or raise "
            f"max_bad_fraction; first: {first}"
        )
    num_windows = sum(len(clip.window_starts) for clip in clips.kept if clip.split == "train")
    if num_windows < config.min_clips:
        return DataError(
            f"{root}: the dataset is smaller than one batch: {num_windows} training windows"
            f"{_of_frames(config)}, {config.min_clips} needed ({num_bad} clips unusable, "
            f"{len(clips.too_short)} shorter than the window, all in {report}); "
            "lower trainer.global_batch_size or add data"
        )
    return _small_bucket(config, root, clips, report)


def _of_frames(config: PrepareDatasetConfig) -> str:
    return "" if config.buckets else f" of {config.video.num_pixel_frames} frames"


def _small_bucket(
    config: PrepareDatasetConfig, root: Path, clips: CheckedClips, report: Path
) -> DataError | None:
    """The error of the first bucket that has fewer training windows than a batch, which are of one bucket."""
    for name, counts in summarize_buckets(config.buckets, clips.kept).items():
        num_windows = counts["windows"]["train"]
        if num_windows < config.min_clips:
            return DataError(
                f"{root}: bucket {name} has {num_windows} training windows, a batch takes {config.min_clips} of one "
                f"bucket (all counts in {report}); remove the bucket, lower trainer.global_batch_size or add data"
            )
    return None
