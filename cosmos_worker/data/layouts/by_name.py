"""Find the root folder of a dataset and list its clips, by the name of its layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config.choices import DatasetLayout
from cosmos_worker.config.stages import PrepareDatasetConfig
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
    RecognisedFolder,
    lerobot_version,
    recognise_layout,
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
    """Files and folders by which the root of a dataset in one layout is known."""

    words: str
    """The same in words, for messages."""
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
        DataError: no such folder, with what it recogniseds like instead; or several.
    """
    marks = MARKS[layout]
    if any(_roots_with(folder, 0, pattern) for pattern in marks.patterns):
        _refuse_another(folder, layout)
        return folder
    below = {
        path
        for depth in range(1, SEARCH_DEPTH + 1)
        for pattern in marks.patterns
        for path in _roots_with(folder, depth, pattern)
    }
    if layout == "jsonl":
        # a folder of a split belongs to the dataset above it, and so does LeRobot's meta/
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
    recognised = recognise_layout(folder)
    if layout == "videos" and recognised is not None and recognised.layout == layout:
        return folder  # captions lie beside the videos
    raise DataError(
        f"{folder}: no {marks.words}, which layout {layout!r} needs; {_describe_folder(folder, recognised)}"
    )


def _roots_with(folder: Path, depth: int, pattern: str) -> list[Path]:
    """Folders at a depth below a folder in which a pattern of :class:`Marks` matches."""
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
    recognised = recognise_layout(root)
    if recognised is not None and recognised.layout not in (None, "videos"):
        raise DataError(
            f"{root}: no folder {CAPTION_FOLDER}/, which layout {layout!r} needs; {recognised.sentence}"
        )


def _describe_folder(folder: Path, recognised: RecognisedFolder | None) -> str:
    """The sentence of a recognised folder; else the names in a folder and advice."""
    if recognised is not None:
        return recognised.sentence
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
