"""Content of the pages of datasets: clips, what was dropped and why, distributions, and sizes of what was computed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.storage.volumes import (
    DATASET_REPORT_FILE,
    INDEX_FILE,
    SUMMARY_FILE,
)
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.jobs import find_claims
from cosmos_worker.view.json_lines import read_objects

DISTRIBUTIONS = (
    ("num_frames", "Frames of a clip"),
    ("fps", "Frames per second"),
    ("sizes", "Rows x columns"),
    ("captions_per_clip", "Captions of a clip"),
    ("motion", "Motion"),
)
INDEX_PREFIX = "index-"
"""Beginning of the folders, in that of a dataset, in which jobs keep its index."""
MAX_BARS = 12
MAX_COUNTED = 20_000
"""Files of a cache that are counted; of a larger one a part is."""
CACHES = (("embeddings", "latents-", "latents"), ("embeddings", "", "text embeddings"))
TABLE_ROW = re.compile(r"^\| (.*) \|$")
DROPPED_HEADER = ["file", "reason", "value", "remedy"]
"""Header of the tables of dropped clips in the report of prepare-dataset."""
ESCAPED = re.compile(r"\\([\\|`])")


@dataclass(frozen=True)
class Dataset:
    """A checked dataset: the folder of its index, its address, and its summary."""

    address: str
    folder: Path
    summary: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the dataset's folder."""
        is_inner = self.folder.name.startswith(INDEX_PREFIX)
        return self.folder.parent.name if is_inner else self.folder.name

    @property
    def counts(self) -> tuple[int, int]:
        """Clips that were kept, and clips that were found."""
        clips = self.summary.get("clips")
        clips = clips if isinstance(clips, dict) else {}
        return _whole(clips.get("kept")), _whole(clips.get("found"))


@dataclass(frozen=True)
class Bar:
    """One value of a distribution, the number of clips that have it, and its share of the largest number."""

    label: str
    count: int
    share: float


@dataclass(frozen=True)
class ShownClip:
    """A clip with its figures, and the address of its video; None if it is not shown here."""

    clip_id: str
    split: str
    captions: Sequence[str]
    figures: str
    address: str | None
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Cache:
    """A folder of computed files: its address, its kind, its number of files and its bytes, counted up to a limit."""

    address: str
    kind: str
    files: int
    size_bytes: int
    is_complete: bool


def find_datasets(folders: Folders) -> list[Dataset]:
    """All datasets of the folder, by address."""
    found = []
    for claim in find_claims(folders, ("datasets",)):
        for outer in folders.subfolders(claim / "datasets"):
            inner = [one for one in folders.subfolders(outer) if one.name.startswith(INDEX_PREFIX)]
            read = [read_dataset(folders, folder) for folder in (outer, *inner)]
            found += [dataset for dataset in read if dataset is not None]
    return sorted(found, key=lambda one: one.address)


def read_dataset(folders: Folders, folder: Path) -> Dataset | None:
    """The dataset of a folder; None if it holds no index with its summary."""
    address = folders.address_of(folder)
    if address is None or not (folder / INDEX_FILE).is_file():
        return None
    summary = folders.json_object(folder / SUMMARY_FILE)
    return Dataset(address, folder, summary) if summary else None


def distributions(summary: Mapping[str, Any]) -> list[tuple[str, list[Bar]]]:
    """(name, bars) of what the summary counts; of many different numbers, ranges are counted."""
    found = []
    for key, name in DISTRIBUTIONS:
        counts = summary.get(key)
        if isinstance(counts, dict) and counts:
            whole = {str(label): _whole(count) for label, count in counts.items()}
            found.append((name, _bars(whole)))
    return found


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    numbers = {label: _number(label) for label in counts}
    known = [value for value in numbers.values() if value is not None]
    if len(counts) > MAX_BARS and len(known) == len(counts):
        counts = _ranges({value: counts[label] for label, value in numbers.items() if value is not None})  # fmt: skip
    elif len(counts) > MAX_BARS:
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        rest = sum(count for _, count in common[MAX_BARS:])
        counts = {**dict(common[:MAX_BARS]), "others": rest}
    elif len(known) == len(counts):
        counts = dict(sorted(counts.items(), key=lambda item: numbers[item[0]] or 0.0))
    largest = max(counts.values(), default=1) or 1
    return [Bar(label, count, count / largest) for label, count in counts.items()]


def _ranges(counts: Mapping[float, int]) -> dict[str, int]:
    low, high = min(counts), max(counts)
    width = (high - low) / MAX_BARS
    found = [0] * MAX_BARS
    for value, count in counts.items():
        found[min(MAX_BARS - 1, int((value - low) / width))] += count
    edges = [low + width * number for number in range(MAX_BARS + 1)]
    return {
        f"{begin:.4g} to {end:.4g}": count
        for begin, end, count in zip(edges, edges[1:], found, strict=False)
    }


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


# --- clips -----------------------------------------------------------------------------------


def clips_of(folders: Folders, dataset: Dataset, query: str = "") -> list[dict[str, Any]]:
    """The lines of the index whose id or caption has the query in it, in small letters or capitals."""
    lines = read_objects(folders, dataset.folder / INDEX_FILE)
    wanted = query.lower()
    return [line for line in lines if not wanted or wanted in _words(line)]


def _words(line: Mapping[str, Any]) -> str:
    return "\n".join([str(line.get("clip_id", "")), *_captions(line)]).lower()


def _captions(line: Mapping[str, Any]) -> list[str]:
    captions = line.get("captions")
    return [str(one) for one in captions] if isinstance(captions, list) else []


def shown_clip(folders: Folders, dataset: Dataset, line: Mapping[str, Any]) -> ShownClip:
    """A line of the index for people."""
    root = dataset.summary.get("root")
    video = line.get("video")
    address = None
    if isinstance(root, str) and isinstance(video, str):
        path = Path(os.path.normpath(dataset.folder / root)) / video
        found = folders.address_of(path)
        address = found if found is not None and folders.is_shown(found) else None
    fps = _positive(line.get("fps"))
    frames = _whole(line.get("num_frames"))
    first = _whole(line.get("first_frame"))
    windows = line.get("window_starts")
    figures = (
        f"{frames} frames, {fps:g} per second, {_whole(line.get('height'))}x{_whole(line.get('width'))}, "
        f"{len(windows) if isinstance(windows, list) else 0} windows"
    )
    return ShownClip(
        str(line.get("clip_id", "")), str(line.get("split", "")), _captions(line), figures, address,
        first / fps if first else 0.0, (first + frames) / fps,
    )  # fmt: skip


def _positive(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 < value < 1e6 else 1.0


def dropped_rows(folders: Folders, dataset: Dataset) -> Iterator[list[str]]:
    """File, reason, value and remedy of every dropped clip, from the tables of the dataset's report."""
    is_dropped = False
    for line in (folders.text(dataset.folder / DATASET_REPORT_FILE) or "").split("\n"):
        if line.startswith("|---"):
            continue
        match = TABLE_ROW.match(line)
        cells = match[1].split(" | ") if match else []
        if cells == DROPPED_HEADER:
            is_dropped = True
        elif is_dropped and len(cells) == len(DROPPED_HEADER):
            yield [ESCAPED.sub(r"\1", one).replace("&lt;", "<") for one in cells]
        else:
            is_dropped = False


# --- caches ----------------------------------------------------------------------------------


def find_caches(folders: Folders) -> list[Cache]:
    """Folders of latents and of text embeddings with their sizes."""
    found = []
    for claim in find_claims(folders, ("embeddings",)):
        for folder in folders.subfolders(claim / "embeddings"):
            address = folders.address_of(folder)
            if address is None:
                continue
            kind = next(kind for _, prefix, kind in CACHES if folder.name.startswith(prefix))
            files, size, is_complete = _size(folders, folder)
            found.append(Cache(address, kind, files, size, is_complete))
    return found


def _size(folders: Folders, folder: Path) -> tuple[int, int, bool]:
    files = size = 0
    waiting = [folder]
    while waiting:
        for one in folders.entries(waiting.pop()):
            if one.is_dir():
                waiting.append(Path(one.path))
                continue
            if files == MAX_COUNTED:
                return files, size, False
            files += 1
            try:
                size += one.stat().st_size
            except OSError:
                continue
    return files, size, True
