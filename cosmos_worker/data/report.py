"""What prepare-dataset tells: the summary for programs, the report for people, and whether to go on."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cosmos_worker.config.experiment import VideoConfig
from cosmos_worker.config.stages import (
    Fit,
    PrepareDatasetConfig,
)
from cosmos_worker.data.buckets import stretch
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.distortion import (
    TOLD_ABOVE,
    find_distortions,
    summarize_distortions,
)
from cosmos_worker.data.held_out import HeldOut
from cosmos_worker.data.index import SPLITS, Clip
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.text_files import printable
from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import (
    VIDEO_READER_VERSION,
    Volumes,
)

FIT_ADVICE = (
    "dataset.fit Crop cuts what protrudes, Pad adds black bars, Stretch changes the shape of things"
)
HOW_RESIZED: dict[Fit, str] = {
    "stretch": "without keeping the aspect ratio",
    "crop": "with the aspect ratio kept: what protrudes is cut",
    "pad": "with the aspect ratio kept: the rest is black",
}
MARKUP = re.compile(r"[\\|`]")
"""Characters that would end a cell of a table or change how it is shown."""
NUM_EXAMPLES = 3
"""Dropped clips that an error message names; the report names all."""


@dataclass(frozen=True)
class Remarks:
    """What is to be told of a dataset beside the outcome for each clip."""

    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Pattern of files that name no clip → their number."""
    notes: tuple[str, ...] = ()
    """What was taken for what, in sentences."""
    held_out: HeldOut | None = None
    """What became of validation_fraction; None if it is 0."""


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
        "source": config.source.model_dump(mode="json", exclude_none=True),
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


def render_report(
    config: PrepareDatasetConfig,
    root: Path,
    clips: CheckedClips,
    remarks: Remarks | None = None,
) -> str:
    """The report in Markdown: what was kept, what is to be known of it, and every dropped clip with its reason."""
    summary = summarize(config, clips, remarks)
    counts = summary["clips"]
    lines = [
        "# Dataset check",
        "",
        f"{printable(str(root))}, layout {config.layout}: {counts['found']} clips, {counts['kept']} kept, "
        f"{counts['bad']} unusable, {counts['too_short']} shorter than "
        f"{'every bucket' if config.buckets else 'the window'}.",
        "",
        *_windows(config, summary),
        "",
        "| split | clips | windows |",
        "|---|---|---|",
        *(f"| {name} | {n['clips']} | {n['windows']} |" for name, n in summary["splits"].items()),
        "",
        f"- sizes (height x width, as shown): {_counts(summary['sizes'])}",
        f"- frames per second: {_counts(summary['fps'])}",
        f"- frames per clip: {_counts(summary['num_frames'])}",
        f"- distinct captions: {summary['captions']}",
        f"- captions per clip: {_counts(summary['captions_per_clip'])}",
        *_resampled_line(summary),
        *(f"- {reason}: {number} clips dropped" for reason, number in summary["dropped"].items()),
        "",
        *_notes_table(clips.notes),
        *_remarks(summary),
        *_distortion_tables(config, clips.kept),
        *_dropped_table("Unusable clips", clips.bad),
        *_dropped_table("Clips shorter than the window", clips.too_short),
    ]
    return "\n".join(lines)


def _remarks(summary: dict[str, Any]) -> list[str]:
    lines = [
        *([summary["held_out"]["sentence"]] if "held_out" in summary else []),
        *map(printable, summary["notes"]),
        *(
            f"passed over: {number} of {printable(pattern)}"
            for pattern, number in summary["passed_over"].items()
        ),
    ]
    return ["## To be known", "", *(f"- {line}" for line in lines), ""] if lines else []


def _distortion_tables(config: PrepareDatasetConfig, kept: Sequence[Clip]) -> list[str]:
    """Clips that a window shows distorted, cut or with bars: by size, and one by one."""
    found = find_distortions(config, kept)
    if not found:
        return []
    sizes = summarize_distortions(config.fit, found)["sizes"]
    return [
        f"## Clips of another aspect ratio ({len(found)})",
        "",
        f"The aspect ratio of these differs from the window's by over {float(TOLD_ABOVE - 1):.0%}; {FIT_ADVICE}.",
        "",
        "| size | window | clips | what becomes of the picture |",
        "|---|---|---|---|",
        *(f"| {n['size']} | {n['window']} | {n['clips']} | {n['what']} |" for n in sizes),
        "",
        "| clip | size | window | what becomes of the picture |",
        "|---|---|---|---|",
        *(f"| {_cell(n.name)} | {n.size} | {n.window_size} | {n.words} |" for n in found),
        "",
    ]


def _windows(config: PrepareDatasetConfig, summary: dict[str, Any]) -> list[str]:
    """What a window is; with buckets what there is of each."""
    video = config.video
    if not config.buckets:
        return [
            f"A window is {video.num_pixel_frames} frames, every {video.window_stride} frames, resized to "
            f"{video.height}x{video.width} (height x width) {HOW_RESIZED[config.fit]}."
        ]
    rows = [
        f"| {name} | {bucket.window_stride} | {n['clips']} | "
        f"{' | '.join(str(n['windows'][split]) for split in SPLITS)} | {n['largest_stretch']:g} |"
        for bucket in config.buckets
        for name, n in [(bucket.size_name, summary["buckets"][bucket.size_name])]
    ]
    return [
        "Each clip is in the bucket (frames x height x width) that fits it best. A window is resized to it "
        f"{HOW_RESIZED[config.fit]}; the largest stretch is the factor between the aspect ratios of a clip and its "
        "bucket.",
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
    """Text as one cell of a table, whatever is in it."""
    escaped = MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
    return escaped.replace("<", "&lt;")


def find_failure(
    config: PrepareDatasetConfig, root: Path, clips: CheckedClips, report: Path | str
) -> DataError | None:
    """The error that stops the job, if too many clips are bad or too few windows are left.

    Args:
        config: of the stage.
        root: folder of the dataset.
        clips: the outcome for each.
        report: file that has them all, or words for another place.
    """
    num_bad, num_clips = len(clips.bad), clips.num_clips
    where = f"all in {report}"
    if num_bad > config.max_bad_fraction * num_clips:
        first = "; ".join(f"({n}) {bad}" for n, bad in enumerate(clips.bad[:NUM_EXAMPLES], start=1))
        return DataError(
            f"{root}: {num_bad} of {num_clips} clips ({num_bad / num_clips:.1%}) are unusable ({_reasons(clips.bad)}), "
            f"max_bad_fraction allows {config.max_bad_fraction:.1%}; repair or remove them ({where}) or raise "
            f"max_bad_fraction; first: {first}"
        )
    num_windows = sum(len(clip.window_starts) for clip in clips.kept if clip.split == "train")
    if num_windows < config.min_clips:
        others = {split: sum(clip.split == split for clip in clips.kept) for split in SPLITS[1:]}
        elsewhere = ", ".join(
            f"{number} of split {name}" for name, number in others.items() if number
        )
        return DataError(
            f"{root}: the dataset is smaller than one batch: {num_windows} training windows"
            f"{_of_frames(config)}, {config.min_clips} needed ({num_bad} clips unusable, "
            f"{len(clips.too_short)} shorter than the window{', ' + elsewhere if elsewhere else ''}, {where}); "
            f"{_how_to_grow(num_windows, clips)}"
        )
    return _small_bucket(config, root, clips, where)


def _how_to_grow(num_windows: int, clips: CheckedClips) -> str:
    """What helps a dataset that is smaller than a batch."""
    if num_windows:
        return "lower trainer.global_batch_size or add data"
    if clips.too_short:
        return "shorten the windows (experiment.video.num_pixel_frames) or add longer clips"
    return "add clips of the split train"


def _reasons(problems: Iterable[BadClip]) -> str:
    """Reasons with their number of clips, the most frequent first."""
    counts = Counter(problem.reason for problem in problems).most_common()
    return ", ".join(f"{reason} {number}" for reason, number in counts)


def _of_frames(config: PrepareDatasetConfig) -> str:
    return "" if config.buckets else f" of {config.video.num_pixel_frames} frames"


def _small_bucket(
    config: PrepareDatasetConfig, root: Path, clips: CheckedClips, where: str
) -> DataError | None:
    """The error of the first bucket that has fewer training windows than a batch, which are of one bucket."""
    for name, counts in summarize_buckets(config.buckets, clips.kept).items():
        num_windows = counts["windows"]["train"]
        if num_windows < config.min_clips:
            return DataError(
                f"{root}: bucket {name} has {num_windows} training windows, a batch takes {config.min_clips} of one "
                f"bucket ({where}); remove the bucket, lower trainer.global_batch_size or add data"
            )
    return None
