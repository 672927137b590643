"""meta/info.json of a LeRobot dataset: format, cameras, splits, and the paths of its files.

Source: huggingface/lerobot, src/lerobot/datasets/{utils,dataset_metadata}.py for format v3.0, and
src/lerobot/datasets/v30/convert_dataset_v21_to_v30.py for the names and templates of v2.0 and v2.1. The lerobot
package itself is not needed: what is read here are JSON and parquet files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cosmos_worker.config.captions import TextError
from cosmos_worker.data.index import SPLITS, Split, split_named
from cosmos_worker.data.problems import read_text
from cosmos_worker.data.text_files import brief, parse_json, printable
from cosmos_worker.errors import ConfigError, DataError

INFO_FILE = "meta/info.json"
READABLE = ("v2.0", "v2.1", "v3.0")
"""Formats (codebase_version) that are read; v2.0 lies on disk as v2.1 does, but for its statistics."""
DEFAULT_PATHS = {
    "v2": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}
"""By major version: data_path and video_path, if info.json gives none."""
DEFAULT_CHUNKS_SIZE = 1000
PLACEHOLDER = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")
"""A placeholder of a template: {video_key}, {chunk_index:03d}."""
RANGE = re.compile(r"\s*(\d{0,9})\s*:\s*(\d{0,9})\s*")
"""Episodes of a split: 0:50."""


@dataclass(frozen=True)
class LeRobotInfo:
    """Content of info.json, for one camera."""

    version: str
    """Format, such as v2.1."""
    fps: float
    """Frames per second of data and videos."""
    camera: str
    """Feature with the videos, such as observation.images.front."""
    data_path: str
    """Template of the parquet files' paths."""
    video_path: str
    """Template of the video files' paths."""
    chunks_size: int
    """Episodes of a chunk (v2)."""
    total_episodes: int | None
    splits: Mapping[Split, tuple[range, ...]] | None
    """Episodes of each split; None = no split is given, all are training data."""

    @property
    def is_v3(self) -> bool:
        """True for format v3.0, in which several episodes lie in one file."""
        return self.version.startswith("v3")

    def split_of(self, episode: int) -> Split | None:
        """The split that an episode belongs to; None = none has it."""
        if self.splits is None:
            return "train"
        return next(
            (name for name, parts in self.splits.items() if any(episode in part for part in parts)),
            None,
        )


def read_info(root: Path, camera_name: str | None) -> LeRobotInfo:
    """Read meta/info.json.

    Args:
        root: folder of the dataset.
        camera_name: feature with the videos, or the end of its name, such as front; None = the only one.

    Raises:
        DataError: the file is damaged, or of a format that is not read.
        ConfigError: no such camera, or none is chosen of several.
    """
    path = root / INFO_FILE
    try:
        document = parse_json(read_text(path, INFO_FILE))
    except TextError as error:
        raise DataError(f"{path}: {error}; correct it or fetch the dataset again") from None
    if not isinstance(document, dict):
        _refuse(path, f"holds a {type(document).__name__}, not an object")
    version = document.get("codebase_version")
    if version not in READABLE:
        raise DataError(
            f"{path}: codebase_version is {brief(version)}, formats {', '.join(READABLE)} are read; convert the "
            "dataset with the scripts of the lerobot package (lerobot.datasets.v30.convert_dataset_v21_to_v30 and "
            "those for earlier versions)"
        )
    data_path, video_path = DEFAULT_PATHS[version[:2]]
    fps = document.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < 1e4:
        _refuse(path, f"fps is {brief(fps)}, not a number above 0")
    return LeRobotInfo(
        version=version,
        fps=float(fps),
        camera=choose_camera(document.get("features"), camera_name, path),
        data_path=_text(document, "data_path", data_path, path),
        video_path=_text(document, "video_path", video_path, path),
        chunks_size=_count(document, "chunks_size", path) or DEFAULT_CHUNKS_SIZE,
        total_episodes=_count(document, "total_episodes", path),
        splits=_splits(document.get("splits"), path),
    )


def _refuse(path: Path, value: str) -> NoReturn:
    raise DataError(f"{path}: {value}; correct it or fetch the dataset again")


def _text(document: Mapping[str, Any], name: str, default: str, path: Path) -> str:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        _refuse(path, f"{name} is {brief(value)}, not a text")
    return value or default


def _count(document: Mapping[str, Any], name: str, path: Path) -> int | None:
    value = document.get(name)
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9
    ):
        _refuse(path, f"{name} is {brief(value)}, not a number of at least 0")
    return value


# --- cameras ----------------------------------------------------------------------------------


def choose_camera(features: Any, wanted: str | None, path: Path) -> str:  # noqa: ANN401 - of JSON
    """The feature with the videos to use.

    Args:
        features: of info.json.
        wanted: its name, or the end of it that no other camera shares; None = the only one.
        path: of info.json, for messages.

    Raises:
        DataError: features that are no object, or no camera with videos.
        ConfigError: no such camera, one without colour videos, or none is chosen of several.
    """
    if not isinstance(features, dict):
        _refuse(path, f"features is {brief(features)}, not an object")
    kinds = {name: kind for name, one in features.items() if (kind := _content_of(one)) is not None}
    for name in kinds:
        if printable(name) != name or "/" in name or not name:
            _refuse(path, f"features has the name {brief(name)}, which no folder can have")
    cameras = [name for name, kind in kinds.items() if kind == "video"]
    if not cameras:
        raise DataError(
            f"{path}: no camera has colour videos ({_describe_kinds(kinds)}); frames are read from video files only: "
            "write the dataset with videos (use_videos=True of the lerobot package)"
        )
    if wanted is None:
        if len(cameras) > 1:
            raise ConfigError(
                f"{path}: the dataset has {len(cameras)} cameras: {', '.join(cameras)}; choose one with "
                "spec.dataset.cameraName (in a stage document camera_name, of check-dataset --camera-name)"
            )
        return cameras[0]
    found = [wanted] if wanted in kinds else _ending(cameras, wanted) or _ending(kinds, wanted)
    if len(found) != 1:
        what = f"is the end of {', '.join(found)}" if found else "is no camera of the dataset"
        raise ConfigError(
            f"spec.dataset.cameraName (camera_name): {brief(wanted)} {what}; use one of {', '.join(cameras)}"
        )
    if kinds[found[0]] != "video":
        raise ConfigError(
            f"spec.dataset.cameraName (camera_name): {found[0]} holds {kinds[found[0]]}, which are not read; "
            f"use one of {', '.join(cameras)}"
        )
    return found[0]


def _content_of(feature: object) -> str | None:
    """Content of a feature: ``video``, or the pictures that are not read; None = no pictures."""
    if not isinstance(feature, dict) or feature.get("dtype") not in ("video", "image"):
        return None
    notes = [note for key in ("info", "video_info") if isinstance(note := feature.get(key), dict)]
    if any(note.get(key) for note in notes for key in ("is_depth_map", "video.is_depth_map")):
        return "depth maps"
    return "video" if feature["dtype"] == "video" else "single images (dtype image)"


def _ending(names: Mapping[str, str] | list[str], wanted: str) -> list[str]:
    return [name for name in names if name.endswith(f".{wanted}")]


def _describe_kinds(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in kinds.items()) or "no feature has pictures"


# --- splits and paths -------------------------------------------------------------------------


def _splits(document: Any, path: Path) -> Mapping[Split, tuple[range, ...]] | None:  # noqa: ANN401
    if document is None or document == {}:
        return None
    if not isinstance(document, dict):
        _refuse(path, f"splits is {brief(document)}, not an object")
    splits: dict[Split, tuple[range, ...]] = {}
    for name, text in document.items():
        match = RANGE.fullmatch(text) if isinstance(text, str) else None
        own = split_named(name)
        if own is None or match is None:
            raise DataError(
                f"{path}: splits has {brief(name)}: {brief(text)}; the names {', '.join(SPLITS)} are read, with "
                "episodes such as '0:50'; correct it"
            )
        part = range(int(match[1] or 0), int(match[2] or 10**9))
        for other, parts in splits.items():
            if any(part.start < one.stop and one.start < part.stop for one in parts):
                _refuse(path, f"splits: {name} and {other} share episodes")
        splits[own] = (*splits.get(own, ()), part)
    return splits


def fill_template(template: str, values: Mapping[str, int | str], where: str) -> str:
    """A path template of info.json with its placeholders filled, which are plain or zero-padded numbers.

    Args:
        template: such as videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4.
        values: of the placeholders.
        where: names the template in messages.

    Raises:
        DataError: an unknown placeholder, or a path that leaves the dataset.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise DataError(
                f"{where}: {brief(template)} has the placeholder {match[0]:.40}; known are {', '.join(values)}"
            )
        found = values[match[1]]
        return str(found).zfill(int(match[2])) if match[2] else str(found)

    path = PLACEHOLDER.sub(value, template)
    if "{" in path or "}" in path or path.startswith("/") or ".." in path.split("/"):
        raise DataError(f"{where}: {brief(template)} is no path inside the dataset; correct it")
    return path
