"""Episodes, tasks and frames of a LeRobot dataset, from its parquet and JSONL files.

Source: huggingface/lerobot, src/lerobot/datasets/{io_utils,dataset_metadata,dataset_writer}.py for format v3.0,
src/lerobot/datasets/v30/convert_dataset_v21_to_v30.py for v2.0 and v2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosmos_worker.config.captions import TextError
from cosmos_worker.data.dataset_files import check_path
from cosmos_worker.data.layouts.lerobot_info import (
    LeRobotInfo,
    fill_template,
)
from cosmos_worker.data.layouts.parquet import (
    AGAIN,
    read_columns,
)
from cosmos_worker.data.problems import BadClip, read_text
from cosmos_worker.data.text_files import brief, parse_json
from cosmos_worker.errors import DataError

EPISODES_FOLDER = "meta/episodes"
EPISODES_FILE = "meta/episodes.jsonl"
TASKS_TABLE = "meta/tasks.parquet"
TASKS_FILE = "meta/tasks.jsonl"
MAX_LIST_BYTES = 1 << 30
"""Largest JSONL file of episodes or tasks that is read."""


@dataclass(frozen=True)
class Episode:
    """One recording, as the lists of episodes have it; paths are relative to the dataset's root."""

    index: int
    source: str
    """File that lists it."""
    length: int
    """Frames."""
    video: str
    data: str | None
    """Parquet file with its frames; None = not said."""
    start_s: float | None = None
    """Time in the video file at which it begins; None = the file is the episode."""
    end_s: float | None = None
    tasks: tuple[object, ...] = ()
    """Texts of its tasks, in no particular order."""

    @property
    def name(self) -> str:
        """Such as episode_000003."""
        return f"episode_{self.index:06d}"


@dataclass(frozen=True)
class Rows:
    """What a data file has of one episode, a row for each frame."""

    length: int
    runs: tuple[tuple[int, int], ...]
    """First frame and task_index of each stretch of frames with one task."""
    broken: str = ""
    """What is wrong with the numbers of the frames; empty = nothing."""


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def read_lines(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any] | BadClip]]:
    """Objects of a JSONL file with the place of each, such as meta/tasks.jsonl:3; a broken line costs itself only.

    Raises:
        DataError: no such file, or it is no text.
    """
    if not path.is_file():
        raise DataError(f"{name}: no such file; {AGAIN}")
    for number, line in enumerate(read_text(path, name, MAX_LIST_BYTES).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            document = parse_json(line)
        except TextError as error:
            yield where, BadClip(where, "annotation_broken", str(error))
            continue
        if isinstance(document, dict):
            yield where, document
        else:
            value = f"holds {brief(document)}, not an object"
            yield where, BadClip(where, "annotation_broken", value)


# --- tasks ------------------------------------------------------------------------------------


def read_tasks(root: Path, info: LeRobotInfo) -> dict[int, object]:
    """Text of each task by its number; what is no text is found out when an episode needs it.

    Raises:
        DataError: the file is absent, damaged, or has a number twice.
    """
    if info.is_v3:
        # written by pandas with the texts as its index, whose name is task in newer versions of lerobot
        columns = read_columns(
            root / TASKS_TABLE, TASKS_TABLE, ("task_index", "task", "__index_level_0__")
        )
        numbers = columns.pop("task_index", None)
        texts = next(iter(columns.values()), None)
        if numbers is None or texts is None:
            raise DataError(
                f"{TASKS_TABLE}: has no columns task_index and task (or an index of texts); {AGAIN}"
            )
        pairs = list(zip(numbers, texts, strict=True))
    else:
        pairs = []
        for where, line in read_lines(root / TASKS_FILE, TASKS_FILE):
            if isinstance(line, BadClip) or "task_index" not in line or "task" not in line:
                raise DataError(f"{where}: not an object of task_index and task; {AGAIN}")
            pairs.append((line["task_index"], line["task"]))
    name = TASKS_TABLE if info.is_v3 else TASKS_FILE
    for number, _ in pairs:
        if not isinstance(number, int):
            raise DataError(f"{name}: task_index {brief(number)} is no number; {AGAIN}")
    tasks = dict(pairs)
    if len(tasks) < len(pairs):
        raise DataError(f"{name}: gives a task_index to two tasks; {AGAIN}")
    return tasks


# --- episodes ---------------------------------------------------------------------------------


def read_episodes(root: Path, info: LeRobotInfo) -> tuple[list[Episode], list[BadClip]]:
    """All episodes in the order of their numbers, and those whose entry is unusable.

    Raises:
        DataError: a list is absent or damaged as a whole.
    """
    episodes: list[Episode] = []
    bad: list[BadClip] = []
    for where, row in _v3_rows(root, info) if info.is_v3 else _v2_rows(root):
        try:
            if isinstance(row, BadClip):
                raise row
            episodes.append(_episode(row, where, info))
        except BadClip as problem:
            bad.append(problem)
    first: dict[int, Episode] = {}
    for episode in episodes:
        other = first.setdefault(episode.index, episode)
        if other is not episode:
            value = f"episode {episode.index} is also listed in {other.source}"
            bad.append(BadClip(episode.source, "clip_id_repeated", value))
    return [first[index] for index in sorted(first)], bad


def _v2_rows(root: Path) -> Iterator[tuple[str, dict[str, Any] | BadClip]]:
    return read_lines(root / EPISODES_FILE, EPISODES_FILE)


def _v3_rows(root: Path, info: LeRobotInfo) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted((root / EPISODES_FOLDER).glob("*/*.parquet"))
    if not files:
        raise DataError(f"{root / EPISODES_FOLDER}: no */*.parquet; {AGAIN}")
    video = f"videos/{info.camera}"
    wanted = [
        *("episode_index", "length", "tasks", "data/chunk_index", "data/file_index"),
        *(f"{video}/{name}" for name in ("chunk_index", "file_index")),
        *(f"{video}/{name}" for name in ("from_timestamp", "to_timestamp")),
    ]
    for path in files:
        name = path.relative_to(root).as_posix()
        columns = read_columns(path, name, wanted)
        for needed in ("episode_index", "length", *wanted[5:]):
            if needed not in columns:
                raise DataError(f"{name}: has no column {needed}; {AGAIN}")
        for row in _rows(columns):
            yield name, row


def _episode(row: Mapping[str, Any], where: str, info: LeRobotInfo) -> Episode:
    index = _whole(row, "episode_index", where)
    length = _whole(row, "length", where)
    if length == 0:
        raise BadClip(where, "annotation_broken", f"episode {index} has 0 frames")
    tasks = row.get("tasks")
    tasks = [] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(tasks, list):
        raise BadClip(where, "annotation_broken", f"tasks is {brief(tasks)}, not a list of texts")
    if not info.is_v3:
        places: dict[str, int | str] = {
            "episode_chunk": index // info.chunks_size,
            "episode_index": index,
        }
        return Episode(
            index, where, length,
            video=check_path(
                fill_template(info.video_path, {**places, "video_key": info.camera}, "video_path"),
                where, "video_path",
            ),
            data=fill_template(info.data_path, places, "data_path"),
            tasks=tuple(tasks),
        )  # fmt: skip
    video = f"videos/{info.camera}"
    start, end = (_seconds(row, f"{video}/{name}_timestamp", where) for name in ("from", "to"))
    if start >= end:
        value = f"episode {index} begins at {start:g} s and ends at {end:g} s of its video"
        raise BadClip(where, "annotation_broken", value)
    data = None
    if row.get("data/chunk_index") is not None and row.get("data/file_index") is not None:
        data = fill_template(info.data_path, _file(row, "data", where), "data_path")
    places = {**_file(row, video, where), "video_key": info.camera}
    video = check_path(fill_template(info.video_path, places, "video_path"), where, "video_path")
    return Episode(
        index, where, length, video, data, start, end, tuple(tasks),
    )  # fmt: skip


def _file(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, int | str]:
    names = ("chunk_index", "file_index")
    return {name: _whole(row, f"{prefix}/{name}", where) for name in names}


def _whole(row: Mapping[str, Any], name: str, where: str) -> int:
    value = row.get(name)
    if isinstance(value, float) and value.is_integer():  # a column with gaps is one of floats
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**9:
        told = f"{name} is {brief(value)}, not a number of at least 0"
        raise BadClip(where, "annotation_broken", told)
    return value


def _seconds(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        told = f"episode {brief(row['episode_index'])}: {name} is {brief(value)}, not a time in seconds"
        raise BadClip(where, "annotation_broken", told)
    return float(value)


# --- frames -----------------------------------------------------------------------------------


def read_frames(path: Path, name: str) -> dict[int, Rows]:
    """The rows of each episode in a data file, by its number.

    Raises:
        DataError: no such file, damaged, or without whole numbers in episode_index, frame_index and task_index.
    """
    table = read_columns(path, name, ("episode_index", "frame_index", "task_index"))
    if len(table) < 3:
        raise DataError(f"{name}: lacks one of episode_index, frame_index, task_index; {AGAIN}")
    columns = {column: np.asarray(values) for column, values in table.items()}
    for column, values in columns.items():
        if len(values) and values.dtype.kind not in "iu":
            raise DataError(
                f"{name}: the column {column} has entries that are no whole numbers; {AGAIN}"
            )
    episodes, frames, tasks = columns.values()
    order = np.argsort(episodes, kind="stable")
    starts = np.flatnonzero(np.diff(episodes[order], prepend=-1))
    found = {}
    for rows in np.split(order, starts[1:]) if len(order) else []:
        wrong = np.flatnonzero(frames[rows] != np.arange(len(rows)))
        told = (
            f"its frame {wrong[0]} has frame_index {frames[rows[wrong[0]]]}" if len(wrong) else ""
        )
        changes = [0, *(np.flatnonzero(np.diff(tasks[rows])) + 1).tolist()]
        runs = tuple((first, int(tasks[rows[first]])) for first in changes)
        found[int(episodes[rows[0]])] = Rows(len(rows), runs, told)
    return found
