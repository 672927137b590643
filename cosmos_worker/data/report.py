"""What prepare-dataset tells: the summary for programs, the report for people, and whether to go on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cosmos_worker.config import PrepareDatasetConfig
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.index import SPLITS
from cosmos_worker.data.problems import BadClip
from cosmos_worker.errors import DataError
from cosmos_worker.layout import Volumes

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
        "captions": len({clip.caption for clip in clips.kept}),
    }


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
    counts, video = summary["clips"], config.video
    lines = [
        "# Dataset check",
        "",
        f"{root}, layout {config.layout}: {counts['found']} clips, {counts['kept']} kept, "
        f"{counts['bad']} unusable, {counts['too_short']} shorter than the window.",
        "",
        f"A window is {video.num_pixel_frames} frames, every {video.window_stride} frames, resized to "
        f"{video.height}x{video.width} (height x width) without keeping the aspect ratio.",
        "",
        "| split | clips | windows |",
        "|---|---|---|",
        *(f"| {name} | {n['clips']} | {n['windows']} |" for name, n in summary["splits"].items()),
        "",
        f"- sizes: {_counts(summary['sizes'])}",
        f"- frames per second: {_counts(summary['fps'])}",
        f"- frames per clip: {_counts(summary['num_frames'])}",
        f"- distinct captions: {summary['captions']}",
        "",
        *_dropped_table("Unusable clips", clips.bad),
        *_dropped_table("Clips shorter than the window", clips.too_short),
    ]
    return "\n".join(lines)


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
            f"{root}: the dataset is smaller than one batch: {num_windows} training windows of "
            f"{config.video.num_pixel_frames} frames, {config.min_clips} needed ({num_bad} clips unusable, "
            f"{len(clips.too_short)} shorter than the window, all in {report}); "
            "lower trainer.global_batch_size or add data"
        )
    return None
