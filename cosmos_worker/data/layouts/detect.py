"""What a folder looks like, for errors: which layout would read it, or that none does and what to do then."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_worker.config.stages import DatasetLayout
from cosmos_worker.data.dataset_files import VIDEO_ENDINGS
from cosmos_worker.data.layouts.bridge import ANNOTATION_FOLDER
from cosmos_worker.data.layouts.candidate import SEARCH_DEPTH
from cosmos_worker.data.layouts.clip_lists import has_list
from cosmos_worker.data.layouts.lerobot_info import (
    INFO_FILE,
    READABLE,
)
from cosmos_worker.data.layouts.videos import (
    CAPTION_ENDINGS,
    CAPTION_FOLDER,
    VIDEO_FOLDER,
)

MAX_FOLDERS = 200
"""Folders that are looked into, nearest first."""
MAX_NAMES = 20_000
"""Names that are looked at in all of them."""
LIST_HOW = "list videos and captions in dataset.jsonl and set layout: Jsonl"
UNKNOWN = "unknown"
"""Format of a LeRobot dataset whose info.json does not say it."""
UNREADABLE = (
    ("RLDS (TFRecord files)", (".tfrecord",), f"convert it to LeRobot's format, or export the videos, {LIST_HOW}"),
    ("HDF5 files", (".hdf5", ".h5"), f"convert it to LeRobot's format, or export the videos, {LIST_HOW}"),
    ("Zarr arrays", (".zarr", ".zgroup", ".zarray"), f"export the videos, {LIST_HOW}"),
    ("tar files, such as shards of a WebDataset", (".tar",), f"unpack them, {LIST_HOW}"),
    ("archives", (".tgz", ".gz", ".zip", ".zst", ".7z"), "unpack them and give the folder with what was in them"),
    ("parquet files without meta/info.json", (".parquet",), f"export the videos in them, {LIST_HOW}"),
)  # fmt: skip
"""Kinds of files that no layout reads: what they are, their endings, and what to do."""


@dataclass(frozen=True)
class Look:
    """What a folder looks like."""

    sentence: str
    """What it is and what to do."""
    layout: DatasetLayout | None = None
    """The layout that reads it; None = none does."""


def recognise(folder: Path) -> Look | None:
    """What a folder, or the nearest one below it, looks like; None = nothing that is known.

    Args:
        folder: as the user gave it.
    """
    names: list[str] = []
    has_videos = has_pairs = False
    for place, files in _folders(folder):
        has_videos |= _has(place / VIDEO_FOLDER, tuple(VIDEO_ENDINGS))
        found = _readable(place)
        if found is not None:
            return replace(found, sentence=_in(place, folder, found.sentence))
        names += files
        has_pairs |= _has_pairs(files)
    if has_pairs:
        return Look(
            f"this is a folder of videos with captions beside them; {_set('Videos')}", "videos"
        )
    sentence = _unreadable(names)
    return None if sentence is None else Look(sentence, "videos" if has_videos else None)


def lerobot_version(folder: Path) -> str | None:
    """Format of a LeRobot dataset, such as v3.0; None = the folder is the root of none."""
    if (folder / "meta_data" / "info.json").is_file():
        return "v1"
    document = _json(folder / INFO_FILE)
    version = document.get("codebase_version") if isinstance(document, dict) else None
    if version is None and (folder / INFO_FILE).is_file():
        return UNKNOWN
    return version if isinstance(version, str) else None


def _readable(folder: Path) -> Look | None:
    version = lerobot_version(folder)
    if version in READABLE:
        return Look(f"a LeRobot {version} dataset; {_set('LeRobot')}", "lerobot")
    if version == UNKNOWN:
        what = f"a LeRobot dataset, if {INFO_FILE}, which says no format, can be repaired"
        return Look(f"{what}; {_set('LeRobot')}", "lerobot")
    if version is not None:
        return Look(
            f"a LeRobot dataset of format {version:.20}, which is not read; convert it to one of {', '.join(READABLE)} "
            "with the scripts of the lerobot package"
        )
    if (folder / ANNOTATION_FOLDER).is_dir():
        return Look(f"a dataset like Bridge; {_set('Bridge')}", "bridge")
    if _has(folder / VIDEO_FOLDER, tuple(VIDEO_ENDINGS)) and _has(
        folder / CAPTION_FOLDER, (".txt",)
    ):
        what = f"a folder of {VIDEO_FOLDER}/ with captions in {CAPTION_FOLDER}/; {_set('Videos')}"
        return Look(what, "videos")
    if has_list(folder):
        return Look(f"a dataset with a list of its clips; {_set('Jsonl')}", "jsonl")
    return None


def _set(layout: str) -> str:
    return f"set layout: {layout} (in a stage document: {layout.lower()})"


def _has_pairs(names: list[str]) -> bool:
    """Whether a folder has a video and a text of the same name."""
    paths = [PurePosixPath(name) for name in names]
    texts = {path.stem for path in paths if path.suffix.lower() in CAPTION_ENDINGS}
    return any(path.stem in texts for path in paths if path.suffix.lower() in VIDEO_ENDINGS)


def _in(place: Path, folder: Path, found: str) -> str:
    if place == folder:
        return f"this is {found}"
    return f"{place.relative_to(folder).as_posix()}/ is {found}"


def _unreadable(names: list[str]) -> str | None:
    """What files of unknown arrangement look like, by their endings."""
    endings = Counter(PurePosixPath(name.lower()).suffix for name in names)
    for name in names:  # shards are named x.tfrecord-00000-of-00010
        endings[".tfrecord"] += ".tfrecord-" in name
    for what, suffixes, how in UNREADABLE:
        number = sum(endings[suffix] for suffix in suffixes)
        if number:
            return f"it looks like {what} ({number} found), which are not read; {how}"
    videos = [name for name in names if PurePosixPath(name.lower()).suffix in VIDEO_ENDINGS]
    if videos:
        return f"it holds {len(videos)} videos without captions; {LIST_HOW}"
    return None


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it with the names of their files, nearest first."""
    level, seen, left = [folder], 0, MAX_NAMES
    for _ in range(SEARCH_DEPTH + 1):
        below: list[Path] = []
        for place in level:
            if seen == MAX_FOLDERS or left <= 0:
                return
            seen += 1
            try:
                with os.scandir(place) as entries:
                    found = [entry for _, entry in zip(range(left), entries, strict=False)]
            except OSError:
                continue
            left -= len(found)
            visible = sorted(
                (one for one in found if not one.name.startswith(".")), key=lambda one: one.name
            )
            below += [Path(one.path) for one in visible if one.is_dir(follow_symlinks=False)]
            yield place, [one.name for one in found if _is_file(one) or one.name.endswith(".zarr")]
        level = below


def _has(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a folder has a file with one of these endings, in it or in the folders below."""
    return any(name.lower().endswith(suffixes) for _, names in _folders(folder) for name in names)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
