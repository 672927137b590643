"""The error that stops a job: too many unusable clips, or fewer training windows than a batch takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.check import CheckedClips
from cosmos_worker.data.index import SPLITS
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.summary import summarize_buckets
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import counted

NUM_EXAMPLES = 3
"""Dropped clips that the error names; the report names all."""


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
            f"{root}: {num_bad} of {counted(num_clips, 'clip')} ({num_bad / num_clips:.1%}) "
            f"{'is' if num_bad == 1 else 'are'} unusable ({_reasons(clips.bad)}), "
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
            f"{root}: the dataset is smaller than one batch: {counted(num_windows, 'training window')}"
            f"{_of_frames(config)}, {config.min_clips} needed ({counted(num_bad, 'clip')} unusable, "
            f"{len(clips.too_short)} shorter than the window{', ' + elsewhere if elsewhere else ''}, {where}); "
            f"{_advise_growth(num_windows, clips)}"
        )
    return _small_bucket(config, root, clips, where)


def _advise_growth(num_windows: int, clips: CheckedClips) -> str:
    """Advice for a dataset that is smaller than a batch."""
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
    return "" if config.buckets else f" of {counted(config.video.num_pixel_frames, 'frame')}"


def _small_bucket(
    config: PrepareDatasetConfig, root: Path, clips: CheckedClips, where: str
) -> DataError | None:
    """The error of the first bucket with fewer training windows than a batch, whose samples are of one bucket."""
    for name, counts in summarize_buckets(config.buckets, clips.kept).items():
        num_windows = counts["windows"]["train"]
        if num_windows < config.min_clips:
            return DataError(
                f"{root}: bucket {name} has {counted(num_windows, 'training window')}, a batch takes "
                f"{config.min_clips} of one bucket ({where}); remove the bucket, lower trainer.global_batch_size or "
                "add data"
            )
    return None
