"""prepare-dataset: fetch, check every clip, write index.jsonl, summary.json, source.json and report.md.

A dataset that fails the check leaves the files of an earlier run alone; its report is report-failed.md. What was
checked until then is kept in a journal: after an interruption or a repair only the other videos are decoded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.changed_source import (
    Stamp,
    list_files,
    refuse_changed,
    stamp_files,
    write_source,
)
from cosmos_worker.data.check import CheckedClips, check_clips
from cosmos_worker.data.dataset_files import refuse_links
from cosmos_worker.data.git_lfs import refuse_dataset_of_pointers
from cosmos_worker.data.held_out import hold_out
from cosmos_worker.data.index import write_index
from cosmos_worker.data.journal import JOURNAL_FILE, Journal
from cosmos_worker.data.layouts.by_name import (
    find_root,
    list_clips,
)
from cosmos_worker.data.report import FIT_ADVICE, render_report
from cosmos_worker.data.summary import Remarks, portable_root, summarize
from cosmos_worker.data.text_files import printable
from cosmos_worker.data.usable import NUM_EXAMPLES, find_failure
from cosmos_worker.runtime.cgroup import available_cpus
from cosmos_worker.sources.folder import locate_dataset
from cosmos_worker.storage.volumes import (
    DATASET_REPORT_FILE,
    SUMMARY_FILE,
    Volumes,
    atomic_write,
    write_json,
)

logger = logging.getLogger(__name__)

FAILED_REPORT_FILE = "report-failed.md"


@dataclass(frozen=True)
class Examined:
    """A dataset whose clips have all been checked."""

    folder: Path
    """The source's folder."""
    root: Path
    """The dataset's root, in it."""
    files: dict[str, Stamp]
    """Stamps of the files that were read, taken before they were read."""
    clips: CheckedClips
    remarks: Remarks


def examine(config: PrepareDatasetConfig, volumes: Volumes, journal_path: Path) -> Examined:
    """Find the source, list its clips, check each and hold some out.

    Args:
        config: of the stage.
        volumes: where they are mounted.
        journal_path: file that keeps what was checked; nothing else is written, unless the source is to be fetched.

    Raises:
        DataError: unusable source.
        RetryableError: the network fails.
    """
    folder = locate_dataset(config.source, volumes.resolve(config.data_uri), volumes)
    num_workers = config.num_workers or available_cpus()
    root = find_root(folder, config.layout)
    names = list_files(root, config.layout)
    refuse_links(root, names)
    files = stamp_files(root, names)  # before they are read
    refuse_dataset_of_pointers(root, files, config.max_bad_fraction)
    listing = list_clips(config, root, num_workers)
    videos = stamp_files(root, {one.video for one in listing.candidates} - files.keys())
    refuse_dataset_of_pointers(root, videos, config.max_bad_fraction)
    files.update(videos)
    with Journal(journal_path) as journal:
        logger.info(
            "checking root=%s clips=%d videos_known=%d workers=%d",
            root, listing.num_clips, len(journal), num_workers,
        )  # fmt: skip
        clips = check_clips(
            root, listing, config.video, num_workers, journal, config.buckets, config.frame_rate
        )
    clips, held_out = hold_out(clips, listing, config.validation_fraction, config.validation_seed)
    remarks = Remarks(listing.passed_over, listing.notes, held_out)
    return Examined(folder, root, files, clips, remarks)


def run(config: PrepareDatasetConfig, volumes: Volumes) -> dict[str, Any]:
    """Check a dataset and write its index into the target folder.

    Returns:
        ``clips`` (found, kept, bad, too_short), ``splits`` (clips and windows of each), ``windows`` (of all
        splits), ``dropped`` (reason → clips), ``captions`` (distinct) and ``index_sha256``; with buckets also
        ``buckets`` (clips, windows of each split, largest stretch); where there are any also ``distorted`` (clips
        of another aspect ratio), ``held_out`` (clips) and ``passed_over`` (files).

    Raises:
        DataError: unusable source, too many bad clips, or fewer training windows, in all or in a bucket, than
            ``min_clips``.
        RetryableError: the network fails.
    """
    target = volumes.resolve(config.target_uri)
    examined = examine(config, volumes, target / JOURNAL_FILE)
    root, clips = examined.root, examined.clips

    report = render_report(config, root, clips, examined.remarks)
    failure = find_failure(config, root, clips, target / FAILED_REPORT_FILE)
    if failure is not None:
        _write_text(target / FAILED_REPORT_FILE, report)
        raise failure

    summary = summarize(config, clips, examined.remarks)
    log_summary(summary, target / DATASET_REPORT_FILE)
    for file, note in clips.notes:
        logger.warning("video=%s note=%r", printable(file), note)
    summary["root"] = portable_root(root, target, volumes)
    summary["index_sha256"] = write_index(target, clips.kept)
    if config.source.path is not None:
        write_source(target, examined.folder, root, examined.files)
    write_json(target / SUMMARY_FILE, summary)
    _write_text(target / DATASET_REPORT_FILE, report)
    (target / FAILED_REPORT_FILE).unlink(missing_ok=True)
    (target / JOURNAL_FILE).unlink(missing_ok=True)
    told = ("clips", "splits", "dropped", "captions", "index_sha256", "buckets")
    return {
        **{key: summary[key] for key in told if key in summary},
        "windows": sum(split["windows"] for split in summary["splits"].values()),
        **{name: number for name, number in _counts_above_zero(summary).items() if number},
    }


def _counts_above_zero(summary: dict[str, Any]) -> dict[str, int]:
    """Numbers of the result that are there only if they are not 0."""
    return {
        "distorted": summary["distortion"]["clips"],
        "held_out": summary.get("held_out", {}).get("clips", 0),
        "passed_over": sum(summary["passed_over"].values()),
    }


def log_summary(summary: dict[str, Any], report: Path) -> None:
    """Log the remarks on a dataset: a line for each reason, however many clips it concerns."""
    for reason, number in summary["dropped"].items():
        logger.warning("dropped clips=%d reason=%s report=%s", number, reason, report)
    for pattern, number in summary["passed_over"].items():
        logger.warning("passed over files=%d %s", number, printable(pattern))
    for note in summary["notes"]:
        logger.info("%s", printable(note))
    if "resampled" in summary:
        logger.info(
            "resampled clips=%d frames_repeated=%d frames_left_out=%d",
            summary["resampled"]["clips"], summary["resampled"]["repeated"], summary["resampled"]["left_out"],
        )  # fmt: skip
    if "held_out" in summary:
        logger.info("%s", summary["held_out"]["sentence"])
    distortion = summary["distortion"]
    if distortion["clips"]:
        worst = "; ".join(
            f"{one['clips']} of {one['size']} into {one['window']}: {one['what']}, such as {one['example']}"
            for one in distortion["sizes"][:NUM_EXAMPLES]
        )
        logger.warning(
            "other aspect ratio clips=%d fit=%s report=%s worst: %s (%s)",
            distortion["clips"], distortion["fit"], report, printable(worst), FIT_ADVICE,
        )  # fmt: skip
    for name, counts in summary.get("buckets", {}).items():
        logger.info(
            "bucket=%s clips=%d train_windows=%d val_windows=%d",
            name, counts["clips"], counts["windows"]["train"], counts["windows"]["val"],
        )  # fmt: skip


def check_done(config: PrepareDatasetConfig, volumes: Volumes) -> None:
    """Refuse a finished index whose folder has changed since.

    Raises:
        DataError: the folder has changed.
    """
    refuse_changed(config, volumes)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)
