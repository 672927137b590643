"""The layouts of datasets by name: which folder is the root of one, and which clips it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config.stages import (
    DatasetLayout,
    PrepareDatasetConfig,
)
from cosmos_worker.data.index import SPLIT_NAMES
from cosmos_worker.data.layouts.bridge import (
    ANNOTATION_FOLDER,
    list_bridge,
)
from cosmos_worker.data.layouts.candidate import (
    SEARCH_DEPTH,
    Listing,
)
from cosmos_worker.data.layouts.clip_lists import (
    METADATA_SUFFIXES,
    VIDEO_LISTS,
)
from cosmos_worker.data.layouts.detect import (
    Look,
    lerobot_version,
    recognise,
)
from cosmos_worker.data.layouts.jsonl import list_jsonl
from cosmos_worker.data.layouts.lerobot import list_lerobot
from cosmos_worker.data.layouts.lerobot_info import INFO_FILE
from cosmos_worker.data.layouts.videos import (
    CAPTION_FOLDER,
    VIDEO_FOLDER,
    list_videos,
)
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import folder_content


@dataclass(frozen=True)
class Marks:
    """What tells the root of a dataset."""

    words: str
    """What must be there, for messages."""
    patterns: tuple[str, ...]
    """Paths below the root, one of which must exist; with a slash at the end a folder."""


MARKS: dict[DatasetLayout, Marks] = {
    "bridge": Marks(f"folder {ANNOTATION_FOLDER}/", (f"{ANNOTATION_FOLDER}/",)),
    "videos": Marks(f"folder {VIDEO_FOLDER}/", (f"{VIDEO_FOLDER}/",)),
    "lerobot": Marks(f"file {INFO_FILE}", (INFO_FILE,)),
    "jsonl": Marks(
        "list of clips (dataset.jsonl, metadata.jsonl or .csv, prompts.txt with videos.txt)",
        (
            "*.jsonl",
            "*.csv",
            *VIDEO_LISTS,
            "metadata.parquet",
            *(f"{name}/metadata{suffix}" for name in SPLIT_NAMES for suffix in METADATA_SUFFIXES),
        ),
    ),
}


def find_root(folder: Path, layout: DatasetLayout) -> Path:
    """The dataset's root: ``folder``, or the one folder below it that holds what the layout needs.

    Raises:
        DataError: no such folder, with what it looks like instead; or several.
    """
    marks = MARKS[layout]
    if any(_find(folder, 0, pattern) for pattern in marks.patterns):
        _refuse_another(folder, layout)
        return folder
    below = {
        path
        for depth in range(1, SEARCH_DEPTH + 1)
        for pattern in marks.patterns
        for path in _find(folder, depth, pattern)
    }
    if (
        layout == "jsonl"
    ):  # a folder of a split belongs to the dataset above it, and so does LeRobot's meta/
        below = {p for p in below if p.parent not in below and lerobot_version(p.parent) is None}
    found = sorted(below)
    if len(found) == 1:
        _refuse_another(found[0], layout)
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:5])
        raise DataError(
            f"{folder}: {len(found)} folders hold a {marks.words} ({names}); give the path of one of them"
        )
    look = recognise(folder)
    if layout == "videos" and look is not None and look.layout == layout:
        return folder  # captions lie beside the videos
    raise DataError(
        f"{folder}: no {marks.words}, which layout {layout!r} needs; {_tell(folder, look)}"
    )


def _find(folder: Path, depth: int, pattern: str) -> list[Path]:
    """Roots at a depth below a folder at which a pattern has something."""
    is_folder, levels = pattern.endswith("/"), pattern.rstrip("/").count("/") + 1
    paths = folder.glob("*/" * depth + pattern.rstrip("/"))
    return [
        path.parents[levels - 1]
        for path in paths
        if (path.is_dir() if is_folder else path.is_file()) and not path.name.startswith(".")
    ]


def _refuse_another(root: Path, layout: DatasetLayout) -> None:
    """Refuse a dataset of another layout that happens to have a folder of the same name."""
    if layout != "videos" or (root / CAPTION_FOLDER).is_dir():
        return
    look = recognise(root)
    if look is not None and look.layout not in (None, "videos"):
        raise DataError(
            f"{root}: no folder {CAPTION_FOLDER}/, which layout {layout!r} needs; {look.sentence}"
        )


def _tell(folder: Path, look: Look | None) -> str:
    """What a folder looks like, or what is in it and what to do."""
    if look is not None:
        return look.sentence
    return (
        f"it holds {folder_content(folder)}; give the dataset's root, or the layout that it has: Bridge, Videos, "
        "LeRobot or Jsonl"
    )


def list_clips(config: PrepareDatasetConfig, root: Path, num_workers: int) -> Listing:
    """All clips that a dataset names.

    Args:
        config: layout and camera.
        root: of :func:`find_root`.
        num_workers: files that are read at the same time.

    Raises:
        DataError: a dataset that cannot be read as a whole.
        ConfigError: a camera that it does not have.
    """
    if config.layout == "bridge":
        return list_bridge(root, config.camera, num_workers)
    if config.layout == "lerobot":
        return list_lerobot(root, config.camera_name, num_workers)
    return list_jsonl(root) if config.layout == "jsonl" else list_videos(root, num_workers)
