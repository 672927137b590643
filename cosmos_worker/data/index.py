"""The dataset index: the usable clips and their windows. Later stages know a dataset by it alone.

``index.jsonl`` holds one clip per line; ``summary.json`` has the folder of the videos and the index's digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import (
    INDEX_FILE,
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    atomic_write,
    sha256_of_file,
)

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of splits in small letters, as people call folders, lists and values of fields → ours."""


def split_named(name: str) -> Split | None:
    """The split that a name means, in small letters or capitals; None if it means none."""
    return SPLIT_NAMES.get(name.lower())


@dataclass(frozen=True)
class Clip:
    """One usable video with its caption."""

    clip_id: str
    """split/episode, unique in the dataset."""
    split: str
    """train, val or test."""
    video: str
    """Path of the file relative to the dataset's root, with forward slashes."""
    captions: tuple[str, ...]
    """Instructions or descriptions, not empty; of several, one is drawn each time the clip is used."""
    num_frames: int
    """Frames of the clip."""
    fps: float
    """Constant frames per second, from the presentation timestamps."""
    height: int
    """Rows of the file in pixels."""
    width: int
    """Columns of the file in pixels."""
    window_starts: tuple[int, ...]
    """First frame of each window, ascending; not empty."""
    video_sha256: str
    """SHA-256 of the file."""
    bucket: str | None = None
    """Size of its windows, such as 57x256x320; None = the dataset has no buckets."""
    first_frame: int = 0
    """Number in the file, in the order shown, of the clip's first frame: a file may hold several clips."""
    frame_numbers: tuple[int, ...] | None = None
    """Number in the file of each of the clip's frames, ascending, some perhaps several times; None = one after another
    from ``first_frame`` on."""
    entry_points: tuple[tuple[int, int], ...] = ()
    """Number and presentation time in ticks of frames of the file from which decoding is proven right, see
    ``entry_points.py``; the last one before the clip and those inside it."""

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]

    def frames_in_file(self, start: int, count: int) -> Sequence[int]:
        """Numbers in the file of the clip's frames start .. start + count - 1."""
        if self.frame_numbers is not None:
            return self.frame_numbers[start : start + count]
        return range(self.first_frame + start, self.first_frame + start + count)


@dataclass(frozen=True)
class Window:
    """A run of num_pixel_frames frames of one clip: one training sample."""

    clip_id: str
    start: int
    """First frame."""
    bucket: str | None = None
    """That of the clip."""

    @property
    def window_id(self) -> str:
        """``clip_id@start``, unique in the dataset."""
        return f"{self.clip_id}@{self.start}"


@dataclass(frozen=True)
class DatasetIndex:
    """All usable clips of a dataset."""

    root: Path
    """Folder that the clips' paths are relative to."""
    clips: tuple[Clip, ...]

    @cached_property
    def _by_id(self) -> dict[str, Clip]:
        return {clip.clip_id: clip for clip in self.clips}

    def windows(self, split: str) -> list[Window]:
        """All windows of a split, in the order of the index; empty if it has none."""
        return [
            Window(clip.clip_id, start, clip.bucket)
            for clip in self.clips
            if clip.split == split
            for start in clip.window_starts
        ]

    def clip(self, clip_id: str) -> Clip:
        """The clip with this id.

        Raises:
            DataError: no such clip.
        """
        if clip_id not in self._by_id:
            raise DataError(
                f"clip {clip_id!r} is not in the index, which has {counted(len(self.clips), 'clip')}; "
                "run prepare-dataset and the stages after it again"
            )
        return self._by_id[clip_id]

    def video_path(self, clip: Clip) -> Path:
        """The clip's file on this machine."""
        return self.root / clip.video

    @property
    def captions(self) -> list[str]:
        """Distinct captions, in the order of the index."""
        return list(dict.fromkeys(text for clip in self.clips for text in clip.captions))


def window_starts(num_frames: int, window: int, stride: int) -> tuple[int, ...]:
    """Starts 0, stride, 2 stride .. of all windows that keep exactly ``window`` of ``num_frames`` frames."""
    return tuple(range(0, num_frames - window + 1, stride))


def write_index(folder: Path, clips: Sequence[Clip]) -> str:
    """Write index.jsonl atomically and return its SHA-256."""
    path = folder / INDEX_FILE
    with atomic_write(path, "w") as stream:
        for clip in clips:
            stream.write(json.dumps(_line_of(clip), ensure_ascii=False, sort_keys=True) + "\n")
    return sha256_of_file(path)


def read_index(folder: Path) -> DatasetIndex:
    """Read the index that prepare-dataset wrote.

    Raises:
        DataError: no index, one of another video reader or that does not belong to its summary, or videos that have
            moved away.
    """
    index, summary = folder / INDEX_FILE, folder / SUMMARY_FILE
    for path in (index, summary):
        if not path.is_file():
            raise DataError(f"{path}: no such file; run prepare-dataset with this target first")
    try:
        facts: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        reader = facts.get("video_reader", 1)
        if reader != VIDEO_READER_VERSION:
            raise DataError(
                f"{folder}: the index was made by version {reader} of the video reader, this one has version "
                f"{VIDEO_READER_VERSION}, which may find other frames; run prepare-dataset again"
            )
        # line by line, as splitlines() would split at U+2028 in a caption
        with index.open(encoding="utf-8") as lines:
            clips = tuple(_clip_of(json.loads(line)) for line in lines)
        root, expected = Path(facts["root"]), facts["index_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: damaged index ({error}); run prepare-dataset again") from None
    if sha256_of_file(index) != expected:
        raise DataError(
            f"{index}: digest is not {expected[:12]}.. of summary.json; run prepare-dataset again"
        )
    root = Path(os.path.normpath(folder.resolve() / root))  # the writer resolves links as well
    if not root.is_dir():
        raise DataError(
            f"{summary}: root {root} is no folder; put the videos back or run prepare-dataset again"
        )
    return DatasetIndex(root, clips)


def _line_of(clip: Clip) -> dict[str, Any]:
    """A clip as JSON, without fields that have their default."""
    line = asdict(clip)
    defaults = {field.name: field.default for field in fields(Clip)}
    return {name: value for name, value in line.items() if value != defaults[name]}


def _clip_of(line: dict[str, Any]) -> Clip:
    return Clip(**{name: _as_tuple(value) for name, value in line.items()})


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
