"""Recognise the content of a folder: the layout that reads it, or advice where none does."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_worker.config.choices import DatasetLayout
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
from cosmos_worker.storage.files import counted

MAX_FOLDERS = 200
"""Folders that are looked into, nearest first."""
MAX_NAMES = 20_000
"""Names that are looked at in all of them."""
LIST_THEM = "list videos and captions in dataset.jsonl and set layout: Jsonl"
UNKNOWN = "unknown"
"""Format of a LeRobot dataset whose info.json does not name it."""
UNREADABLE = (
    ("RLDS (TFRecord files)", (".tfrecord",), f"convert it to LeRobot's format, or export the videos, {LIST_THEM}"),
    ("HDF5 files", (".hdf5", ".h5"), f"convert it to LeRobot's format, or export the videos, {LIST_THEM}"),
    ("Zarr arrays", (".zarr", ".zgroup", ".zarray"), f"export the videos, {LIST_THEM}"),
    ("tar files, such as shards of a WebDataset", (".tar",), f"unpack them, {LIST_THEM}"),
    ("archives", (".tgz", ".gz", ".zip", ".zst", ".7z"), "unpack them and give the folder with what was in them"),
    ("parquet files without meta/info.json", (".parquet",), f"export the videos in them, {LIST_THEM}"),
)  # fmt: skip
"""Kinds of files that no layout reads: what they are, their endings, and what to do."""


@dataclass(frozen=True)
class RecognisedFolder:
    """A folder whose content is known."""

    sentence: str
    """Its content and advice, in one sentence."""
    layout: DatasetLayout | None = None
    """The layout that reads it; None = none does."""


def recognise_layout(folder: Path) -> RecognisedFolder | None:
    """Recognise a folder, or the nearest one below it that is known; None if there is none.

    Args:
        folder: as the user gave it.
    """
    names: list[str] = []
    has_videos = has_pairs = False
    for place, files in _folders(folder):
        has_videos |= _has_file(place / VIDEO_FOLDER, tuple(VIDEO_ENDINGS))
        found = _recognise_readable(place)
        if found is not None:
            return replace(found, sentence=_locate(place, folder, found.sentence))
        names += files
        has_pairs |= _has_pairs(files)
    if has_pairs:
        return RecognisedFolder(
            f"this is a folder of videos with captions beside them; {_advise_layout('Videos')}",
            "videos",
        )
    sentence = _describe_unreadable(names)
    return (
        None if sentence is None else RecognisedFolder(sentence, "videos" if has_videos else None)
    )


def lerobot_version(folder: Path) -> str | None:
    """Format of a LeRobot dataset, such as v3.0; None = the folder is the root of none."""
    if (folder / "meta_data" / "info.json").is_file():
        return "v1"
    document = _read_json(folder / INFO_FILE)
    version = document.get("codebase_version") if isinstance(document, dict) else None
    if version is None and (folder / INFO_FILE).is_file():
        return UNKNOWN
    return version if isinstance(version, str) else None


def _recognise_readable(folder: Path) -> RecognisedFolder | None:
    version = lerobot_version(folder)
    if version in READABLE:
        return RecognisedFolder(
            f"a LeRobot {version} dataset; {_advise_layout('LeRobot')}", "lerobot"
        )
    if version == UNKNOWN:
        what = f"a LeRobot dataset, if {INFO_FILE}, which says no format, can be repaired"
        return RecognisedFolder(f"{what}; {_advise_layout('LeRobot')}", "lerobot")
    if version is not None:
        return RecognisedFolder(
            f"a LeRobot dataset of format {version:.20}, which is not read; convert it to one of {', '.join(READABLE)} "
            "with the scripts of the lerobot package"
        )
    if (folder / ANNOTATION_FOLDER).is_dir():
        return RecognisedFolder(f"a dataset like Bridge; {_advise_layout('Bridge')}", "bridge")
    if _has_file(folder / VIDEO_FOLDER, tuple(VIDEO_ENDINGS)) and _has_file(
        folder / CAPTION_FOLDER, (".txt",)
    ):
        what = f"a folder of {VIDEO_FOLDER}/ with captions in {CAPTION_FOLDER}/; {_advise_layout('Videos')}"
        return RecognisedFolder(what, "videos")
    if has_list(folder):
        return RecognisedFolder(
            f"a dataset with a list of its clips; {_advise_layout('Jsonl')}", "jsonl"
        )
    return None


def _advise_layout(layout: str) -> str:
    return f"set layout: {layout} (in a stage document: {layout.lower()})"


def _has_pairs(names: list[str]) -> bool:
    """True if a folder has a video and a text of the same name."""
    paths = [PurePosixPath(name) for name in names]
    texts = {path.stem for path in paths if path.suffix.lower() in CAPTION_ENDINGS}
    return any(path.stem in texts for path in paths if path.suffix.lower() in VIDEO_ENDINGS)


def _locate(place: Path, folder: Path, found: str) -> str:
    if place == folder:
        return f"this is {found}"
    return f"{place.relative_to(folder).as_posix()}/ is {found}"


def _describe_unreadable(names: list[str]) -> str | None:
    """The sentence about files that no layout reads, by their endings; None if there are none."""
    endings = Counter(PurePosixPath(name.lower()).suffix for name in names)
    for name in names:  # shards are named x.tfrecord-00000-of-00010
        endings[".tfrecord"] += ".tfrecord-" in name
    for what, suffixes, how in UNREADABLE:
        number = sum(endings[suffix] for suffix in suffixes)
        if number:
            return f"it looks like {what} ({number} found), which are not read; {how}"
    videos = [name for name in names if PurePosixPath(name.lower()).suffix in VIDEO_ENDINGS]
    if videos:
        return f"it holds {counted(len(videos), 'video')} without captions; {LIST_THEM}"
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
                    found = list(islice(entries, left))
            except OSError:
                continue
            left -= len(found)
            visible = sorted(
                (one for one in found if not one.name.startswith(".")), key=lambda one: one.name
            )
            below += [Path(one.path) for one in visible if one.is_dir(follow_symlinks=False)]
            yield place, [one.name for one in found if _is_file(one) or one.name.endswith(".zarr")]
        level = below


def _has_file(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """True if a folder, or one below it, has a file with one of these endings."""
    return any(name.lower().endswith(suffixes) for _, names in _folders(folder) for name in names)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
