"""prepare-dataset: fetch, check every clip, write index.jsonl, summary.json, source.json and report.md.

A dataset that fails the check leaves the files of an earlier run alone; its report is report-failed.md. What was
checked until then is kept in a journal: after an interruption or a repair only the other videos are decoded.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cosmos_worker.cgroup import available_cpus
from cosmos_worker.config import PrepareDatasetConfig
from cosmos_worker.data.bridge import ANNOTATION_FOLDER, list_bridge
from cosmos_worker.data.candidate import Listing, find_root
from cosmos_worker.data.check import check_clips
from cosmos_worker.data.fetch import locate_dataset
from cosmos_worker.data.folder import VIDEO_FOLDER, list_videos
from cosmos_worker.data.index import write_index
from cosmos_worker.data.journal import JOURNAL_FILE, Journal
from cosmos_worker.data.lfs import refuse_pointers
from cosmos_worker.data.report import find_failure, portable_root, render_report, summarize
from cosmos_worker.data.source_files import list_files, refuse_changed, stamp_files, write_source
from cosmos_worker.layout import (
    DATASET_REPORT_FILE,
    SUMMARY_FILE,
    Volumes,
    atomic_write,
    write_json,
)

logger = logging.getLogger(__name__)

FAILED_REPORT_FILE = "report-failed.md"
MARKERS = {"bridge": ANNOTATION_FOLDER, "videos": VIDEO_FOLDER}
"""By layout: the folder that tells a dataset's root."""


def run(config: PrepareDatasetConfig, volumes: Volumes) -> dict[str, Any]:
    """Check a dataset and write its index into the target folder.

    Returns:
        ``clips`` (found, kept, bad, too_short), ``splits`` (clips and windows of each), ``windows`` (of all
        splits), ``dropped`` (reason → clips), ``captions`` (distinct) and ``index_sha256``; with buckets also
        ``buckets`` (clips, windows of each split, largest stretch).

    Raises:
        DataError: unusable source, too many bad clips, or fewer training windows, in all or in a bucket, than
            ``min_clips``.
        RetryableError: the network fails.
    """
    target = volumes.resolve(config.target_uri)
    folder = locate_dataset(config.source, volumes.resolve(config.data_uri), volumes)
    num_workers = config.num_workers or available_cpus()
    root = find_root(folder, MARKERS[config.layout], config.layout)
    files = stamp_files(root, list_files(root, config.layout))  # before they are read
    refuse_pointers(root, files, config.max_bad_fraction)
    listing = _list_clips(config, root, num_workers)
    videos = stamp_files(root, {one.video for one in listing.candidates} - files.keys())
    refuse_pointers(root, videos, config.max_bad_fraction)
    files.update(videos)
    with Journal(target / JOURNAL_FILE) as journal:
        logger.info(
            "checking root=%s clips=%d videos_known=%d workers=%d",
            root, listing.num_clips, len(journal), num_workers,
        )  # fmt: skip
        clips = check_clips(root, listing, config.video, num_workers, journal, config.buckets)

    report = render_report(config, root, clips)
    failure = find_failure(config, root, clips, target / FAILED_REPORT_FILE)
    if failure is not None:
        _write_text(target / FAILED_REPORT_FILE, report)
        raise failure

    summary = summarize(config, clips)
    for reason, number in summary["dropped"].items():
        logger.warning(
            "dropped clips=%d reason=%s report=%s", number, reason, target / DATASET_REPORT_FILE
        )
    for name, counts in summary.get("buckets", {}).items():
        logger.info(
            "bucket=%s clips=%d train_windows=%d val_windows=%d",
            name, counts["clips"], counts["windows"]["train"], counts["windows"]["val"],
        )  # fmt: skip
    summary["root"] = portable_root(root, target, volumes)
    summary["index_sha256"] = write_index(target, clips.kept)
    if config.source.path is not None:
        write_source(target, folder, root, files)
    write_json(target / SUMMARY_FILE, summary)
    _write_text(target / DATASET_REPORT_FILE, report)
    (target / FAILED_REPORT_FILE).unlink(missing_ok=True)
    journal.path.unlink(missing_ok=True)
    told = ("clips", "splits", "dropped", "captions", "index_sha256", "buckets")
    return {
        **{key: summary[key] for key in told if key in summary},
        "windows": sum(split["windows"] for split in summary["splits"].values()),
    }


def check_done(config: PrepareDatasetConfig, volumes: Volumes) -> None:
    """Look whether a finished index is still that of its folder.

    Raises:
        DataError: the folder has changed.
    """
    refuse_changed(config, volumes)


def _list_clips(config: PrepareDatasetConfig, root: Path, num_workers: int) -> Listing:
    if config.layout == "bridge":
        return list_bridge(root, config.camera, num_workers)
    return list_videos(root)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)
