"""Cards of the sample videos that a training has written: a held-out window after more and more steps."""

from __future__ import annotations

from pathlib import Path

from cosmos_worker.data.index import read_index
from cosmos_worker.data.video import read_video
from cosmos_worker.report import media
from cosmos_worker.report.collect import Card, Clip
from cosmos_worker.storage.volumes import (
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
    index = read_index(dataset)
    windows = index.windows("val")
    cards = []
    for truth in truths:
        window = windows[_position(truth)]
        found = {int(path.parent.name[5:]): path for path in folder.glob(f"step_*/{truth.name}")}
        steps = evenly(sorted(found), SHOWN_STEPS)
        clips = [
            _clip("Ground truth", "truth", truth),
            *(_clip(f"Step {step}", "generated", found[step]) for step in steps),
        ]
        known = media.frame_uri(read_video(truth)[0])
        cards.append(Card(window.window_id, index.clip(window.clip_id).caption, known, clips))
    return cards


def _position(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _clip(label: str, kind: str, path: Path) -> Clip:
    strip = media.strip_uri(read_video(path), NUM_KNOWN)
    return Clip(label, kind, media.video_uri(path), strip, "", "")
