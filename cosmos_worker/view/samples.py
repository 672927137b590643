"""Videos of a run and of its items: samples while training, generated videos and their ground truth. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from cosmos_worker.report.words import format_number
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    SAMPLED_WINDOWS_FILE,
    SAMPLES_FOLDER,
    TRUTH_FOLDER,
)
from cosmos_worker.view.figures import number_of
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.jobs import Item
from cosmos_worker.view.json_lines import read_objects

STEP_FOLDER = re.compile(r"step_(\d+)")
MOUNTED = re.compile(
    r"^/mnt/cosmos/(?P<volume>models|datasets|embeddings|checkpoints)/(?P<rest>.+)$"
)
"""A path in a pod, where each volume is mounted by its name."""
SHOWN_STEPS = 6
FOLLOWS_SHARE = "follows"


@dataclass(frozen=True)
class Video:
    """A video of a card: its label, the address of its file (None = it cannot be shown, and why), and its figures."""

    label: str
    address: str | None
    why: str = ""
    figures: Sequence[tuple[str, str]] = ()
    is_truth: bool = False
    step: int | None = None


@dataclass(frozen=True)
class Card:
    """Videos that belong together: those of one window or of one input."""

    key: str
    title: str
    caption: str
    videos: Sequence[Video]
    hidden_steps: int = 0


# --- samples while training ------------------------------------------------------------------


def sample_cards(folders: Folders, run: Path, *, all_steps: bool = False) -> list[Card]:
    """A card for each window that the training has sampled: ground truth, then the samples by their steps.

    Args:
        folders: that are shown.
        run: folder of the run.
        all_steps: show every step, not at most `SHOWN_STEPS` of them evenly.
    """
    folder = run / SAMPLES_FOLDER
    names = folders.json_object(folder / SAMPLED_WINDOWS_FILE)
    steps = {
        int(match[1]): one
        for one in folders.subfolders(folder)
        if (match := STEP_FOLDER.fullmatch(one.name))
    }
    found: dict[str, dict[int, Path]] = {}
    for step, one in sorted(steps.items()):
        for path in _videos(folders, one):
            found.setdefault(path.stem, {})[step] = path
    truths = {path.stem: path for path in _videos(folders, folder / TRUTH_FOLDER)}
    cards = []
    for stem in sorted(found, key=_position):
        known = names.get(stem)
        entry = known if isinstance(known, dict) else {}
        shown = sorted(found[stem]) if all_steps else evenly(sorted(found[stem]), SHOWN_STEPS)
        videos = [
            Video(f"Step {step}", folders.address_of(found[stem][step]), step=step)
            for step in shown
        ]
        if stem in truths:
            videos.insert(0, Video("Ground truth", folders.address_of(truths[stem]), is_truth=True))
        window, caption = str(entry.get("window", stem)), str(entry.get("caption", ""))
        cards.append(Card(stem, window, caption, videos, len(found[stem]) - len(shown)))
    return cards


def evenly(values: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def _videos(folders: Folders, folder: Path) -> list[Path]:
    return [Path(one.path) for one in folders.entries(folder) if one.name.endswith(".mp4")]


def _position(stem: str) -> tuple[int, str]:
    first = stem.partition("-")[0]
    return (int(first) if first.isdecimal() and len(first) < 10 else 1 << 30, stem)


# --- generated videos ------------------------------------------------------------------------


@dataclass(frozen=True)
class Generated:
    """The generated videos of one item: its name, folder and records, and True if its list is complete."""

    name: str
    folder: Path
    records: Sequence[Mapping[str, Any]]
    is_complete: bool
    means: Mapping[str, float] = field(default_factory=dict)
    """Mean of every metric that all its videos have."""


def read_generated(folders: Folders, items: Sequence[Item]) -> list[Generated]:
    """The records of items; of an item that is not complete, those of the videos that are there."""
    found = []
    for item in items:
        if item.is_complete:
            records = read_objects(folders, item.folder / GENERATED_FILE)
        else:
            names = [Path(one.path) for one in folders.entries(item.folder)]
            paths = sorted(one for one in names if one.suffix == ".json")
            records = [folders.json_object(path) for path in paths]
        usable = [record for record in records if isinstance(record.get("id"), str)]
        found.append(Generated(item.name, item.folder, usable, item.is_complete, _means(usable)))
    return found


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    figures = [_figures(record) for record in records if record.get("video")]
    if not figures:
        return {}
    names = [name for name in figures[0] if all(name in one for one in figures)]
    return {name: fmean(one[name] for one in figures) for name in names}


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a video that are numbers; true and false count as 1 and 0."""
    metrics = record.get("metrics")
    if not isinstance(metrics, dict):
        return {}
    values = {
        name: float(value) if isinstance(value, bool) else number_of(metrics, name)
        for name, value in metrics.items()
    }
    return {str(name): value for name, value in values.items() if value is not None}


def metric_names(generated: Sequence[Generated]) -> list[str]:
    """Names of the metrics that some item has, in the order of their first appearance."""
    return list(dict.fromkeys(name for one in generated for name in one.means))


def metric_text(value: float | None) -> str:
    """A metric with three digits after the point; a dash if it was not measured."""
    return "–" if value is None else format_number("{:.3f}", value)  # noqa: RUF001 - a dash


def generated_cards(
    folders: Folders, job_folder: Path, generated: Sequence[Generated]
) -> list[Card]:
    """A card for each conditioning video and prompt, with the ground truth and the video of every item."""
    groups: dict[tuple[str, str], list[tuple[Generated, Mapping[str, Any]]]] = {}
    for item in generated:
        for record in item.records:
            key = (str(record.get("visual_input", "")), str(record.get("prompt", "")))
            groups.setdefault(key, []).append((item, record))
    cards = []
    for (visual, prompt), members in groups.items():
        videos = [_generated_video(folders, item, record) for item, record in members]
        truths = [record.get("ground_truth") for _, record in members]
        truth = next((one for one in truths if one), None)
        if isinstance(truth, str):
            videos.insert(0, _truth_video(folders, job_folder, truth))
        cards.append(Card(f"{visual} {prompt}", Path(visual).name, prompt, videos))
    return cards


def _generated_video(folders: Folders, item: Generated, record: Mapping[str, Any]) -> Video:
    name = record.get("video")
    if not isinstance(name, str):
        return Video(item.name, None, "blocked by a guardrail")
    figures = [(key, metric_text(value)) for key, value in _figures(record).items()]
    path = item.folder / Path(name).name
    return Video(item.name, folders.address_of(path), "", figures)


def _truth_video(folders: Folders, job_folder: Path, path: str) -> Video:
    address = place_of(folders, job_folder, path)
    why = "" if address else "its file lies outside of the folder that is shown"
    return Video("Ground truth, whole clip", address, why, is_truth=True)


def place_of(folders: Folders, job_folder: Path, path: str) -> str | None:
    """The address of a file that a record names by its path on the machine that wrote it; None if it is not shown.

    Args:
        folders: that are shown.
        job_folder: an output root, whose claim has the folders of the other volumes beside it.
        path: absolute path.
    """
    match = MOUNTED.match(path)
    places = [Path(path)]
    if match is not None:
        places.append(job_folder.parent.parent / match["volume"] / match["rest"])
    for one in places:
        address = folders.address_of(one) if one.is_absolute() else None
        if address is not None and folders.is_shown(address):
            return address
    return None
