"""Cards of the sample videos that a training has written: a held-out window after more and more steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cosmos_worker.data.index import read_index
from cosmos_worker.data.video.files import read_video
from cosmos_worker.errors import DataError
from cosmos_worker.report import media
from cosmos_worker.report.collect import Card, Clip
from cosmos_worker.storage.volumes import (
    SAMPLED_WINDOWS_FILE,
    SAMPLES_FOLDER,
    TRUTH_FOLDER,
)

SHOWN_WINDOWS = 4
SHOWN_STEPS = 4
NUM_KNOWN = 1


def evenly(values: list[int], count: int) -> list[int]:
    """At most so many of the values, the first and the last among them."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def sample_cards(run: Path, dataset: Path) -> list[Card]:
    """A card per window with its ground truth and some of its samples; none if the training wrote none.

    Raises:
        DataError: a video or the index cannot be read.
    """
    folder = run / SAMPLES_FOLDER
    truths = sorted((folder / TRUTH_FOLDER).glob("*.mp4"), key=_position)[:SHOWN_WINDOWS]
    if not truths:
        return []
    sampled = _sampled_windows(folder, dataset, truths)
    cards = []
    for truth in (truth for truth in truths if truth.stem in sampled):
        window_id, caption = sampled[truth.stem]
        found = {int(path.parent.name[5:]): path for path in folder.glob(f"step_*/{truth.name}")}
        steps = evenly(sorted(found), SHOWN_STEPS)
        clips = [
            _clip("Ground truth", "truth", truth),
            *(_clip(f"Step {step}", "generated", found[step]) for step in steps),
        ]
        known = media.frame_uri(read_video(truth)[0])
        cards.append(Card(window_id, caption, known, clips))
    return cards


def _sampled_windows(
    folder: Path, dataset: Path, truths: Sequence[Path]
) -> dict[str, tuple[str, str]]:
    """Name of a video without suffix → its window and caption: as the training wrote them, else by position.

    Raises:
        DataError: the list of windows or the index cannot be read.
    """
    path = folder / SAMPLED_WINDOWS_FILE
    if path.is_file():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            return {stem: (entry["window"], entry["caption"]) for stem, entry in written.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: damaged ({error!r}); remove it and the videos beside it, and run the report again"
            ) from None
    index = read_index(dataset)
    windows = index.windows("val")
    found = {truth.stem: windows[_position(truth)] for truth in truths}
    return {
        stem: (window.window_id, index.clip(window.clip_id).caption)
        for stem, window in found.items()
    }


def _position(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _clip(label: str, kind: str, path: Path) -> Clip:
    strip = media.strip_uri(read_video(path), NUM_KNOWN)
    return Clip(label, kind, media.video_uri(path), strip, "", "")
