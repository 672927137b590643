"""The report of prepare-dataset in Markdown: report.md, and the output of check-dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.distortion import (
    REPORTED_ABOVE,
    find_distortions,
    summarize_distortions,
)
from cosmos_worker.data.index import SPLITS, Clip
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.summary import Remarks, summarize
from cosmos_worker.data.text_files import printable
from cosmos_worker.storage.files import counted

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


def render_report(
    config: PrepareDatasetConfig,
    root: Path,
    clips: CheckedClips,
    remarks: Remarks | None = None,
) -> str:
    """The report: counts, remarks, clips of another aspect ratio, and every dropped clip with its reason."""
    summary = summarize(config, clips, remarks)
    counts = summary["clips"]
    lines = [
        "# Dataset check",
        "",
        f"{printable(str(root))}, layout {config.layout}: {counted(counts['found'], 'clip')}, {counts['kept']} kept, "
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
        *(
            f"- {reason}: {counted(number, 'clip')} dropped"
            for reason, number in summary["dropped"].items()
        ),
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
    return ["## Remarks", "", *(f"- {line}" for line in lines), ""] if lines else []


def _distortion_tables(config: PrepareDatasetConfig, kept: Sequence[Clip]) -> list[str]:
    """Tables of clips that are distorted, cut or padded in their windows: by size, and one by one."""
    found = find_distortions(config, kept)
    if not found:
        return []
    sizes = summarize_distortions(config.fit, found)["sizes"]
    return [
        f"## Clips of another aspect ratio ({len(found)})",
        "",
        f"The aspect ratio of these differs from the window's by over {float(REPORTED_ABOVE - 1):.0%}; {FIT_ADVICE}.",
        "",
        "| size | window | clips | effect on the picture |",
        "|---|---|---|---|",
        *(f"| {n['size']} | {n['window']} | {n['clips']} | {n['what']} |" for n in sizes),
        "",
        "| clip | size | window | effect on the picture |",
        "|---|---|---|---|",
        *(f"| {_cell(n.name)} | {n.size} | {n.window_size} | {n.words} |" for n in found),
        "",
    ]


def _windows(config: PrepareDatasetConfig, summary: dict[str, Any]) -> list[str]:
    """The sentence about the windows; with buckets a table with the clips and windows of each."""
    video = config.video
    if not config.buckets:
        return [
            f"A window is {counted(video.num_pixel_frames, 'frame')}, {_every(video.window_stride)}, resized to "
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


def _every(stride: int) -> str:
    return "every frame" if stride == 1 else f"every {stride} frames"


def _resampled_line(summary: dict[str, Any]) -> list[str]:
    found = summary.get("resampled")
    if found is None:
        return []
    return [
        f"- frames taken at equal intervals: {counted(found['clips'], 'clip')} changed, "
        f"{counted(found['repeated'], 'frame')} repeated, "
        f"{found['left_out']} left out"
    ]


def _notes_table(notes: Sequence[tuple[str, str]]) -> list[str]:
    if not notes:
        return []
    rows = [f"| {_cell(file)} | {_cell(note)} |" for file, note in notes]
    return ["## Files read in a special way", "", "| file | note |", "|---|---|", *rows, ""]


def _counts(histogram: dict[str, int], limit: int = 12) -> str:
    common = sorted(histogram.items(), key=lambda item: (-item[1], item[0]))
    shown = (
        ", ".join(f"{value} ({counted(number, 'clip')})" for value, number in common[:limit])
        or "none"
    )
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
    """Text as one cell of a table, with all markup escaped."""
    escaped = MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))
    return escaped.replace("<", "&lt;")
