"""LeRobot datasets as its own package writes them (formats v2.1 and v3.0), with numbered frames.

Source: huggingface/lerobot, src/lerobot/datasets/{utils,io_utils,dataset_metadata,dataset_writer}.py and
v30/convert_dataset_v21_to_v30.py: names of files, columns and their types. The package itself is too large to be a
dependency of the tests (it brings gymnasium, datasets, opencv and rerun).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from support.numbered_videos import HEIGHT, WIDTH, Kind, write_numbered

FRONT = "observation.images.front"
FPS = 10
AV1 = Kind("libsvtav1", options={"crf": "30"}, gop=2)
"""LeRobot's own way to encode: SVT-AV1 with a key frame every two frames."""


@dataclass
class Recording:
    """An episode: the task of each of its frames."""

    tasks: list[str]
    listed: list[str] | None = None
    """Tasks in the list of episodes; None = those of the frames."""

    @property
    def names(self) -> list[str]:
        """Distinct tasks in another order than that of the frames: lerobot keeps none."""
        return sorted(set(self.tasks), reverse=True) if self.listed is None else self.listed


def recordings(*lengths: int) -> list[Recording]:
    """Episodes of these lengths with a task each: push 0, push 1 .."""
    return [Recording([f"push {i}"] * length) for i, length in enumerate(lengths)]


@dataclass
class Layout:
    """Properties of a dataset; the frames of all episodes are numbered through."""

    episodes: list[Recording]
    version: str = "v3.0"
    cameras: Sequence[str] = (FRONT,)
    per_file: int = 100
    """Episodes in one video file (v3)."""
    info: dict[str, Any] = field(default_factory=dict)
    """Replaces entries of info.json; those with the value ... are removed."""

    @property
    def task_names(self) -> list[str]:
        """All tasks in the order of their numbers."""
        return list(dict.fromkeys(task for one in self.episodes for task in one.tasks))


def write_lerobot(root: Path, layout: Layout) -> Path:
    """Write a dataset; camera c shows the number of each frame plus 32 c, modulo 64."""
    lengths = [len(one.tasks) for one in layout.episodes]
    features = {
        name: {
            "dtype": "video",
            "shape": [HEIGHT, WIDTH, 3],
            "names": ["height", "width", "channels"],
        }
        for name in layout.cameras
    }
    info: dict[str, Any] = {
        "codebase_version": layout.version,
        "robot_type": None,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(layout.task_names),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "features": {**features, "action": {"dtype": "float32", "shape": [2], "names": None}},
    }
    if layout.version.startswith("v3"):
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        _write_v3(root, layout)
    else:
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        info["video_path"] = (
            "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        )
        _write_v2(root, layout)
    info = {name: value for name, value in {**info, **layout.info}.items() if value is not ...}
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    return root


def _write_video(path: Path, numbers: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_numbered(path, AV1, numbers, FPS)


def _rows(layout: Layout, index: int, begin: int) -> dict[str, list[Any]]:
    tasks = layout.episodes[index].tasks
    numbers = [layout.task_names.index(task) for task in tasks]
    return {
        "action": [[0.0, 1.0] for _ in tasks],
        "timestamp": [i / FPS for i in range(len(tasks))],
        "frame_index": list(range(len(tasks))),
        "episode_index": [index] * len(tasks),
        "index": list(range(begin, begin + len(tasks))),
        "task_index": numbers,
    }


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write a parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_v2(root: Path, layout: Layout) -> None:
    begin, lines = 0, []
    for index, one in enumerate(layout.episodes):
        length = len(one.tasks)
        for c, camera in enumerate(layout.cameras):
            path = root / "videos" / "chunk-000" / camera / f"episode_{index:06d}.mp4"
            _write_video(path, range(begin + 32 * c, begin + 32 * c + length))
        name = f"episode_{index:06d}.parquet"
        write_table(root / "data" / "chunk-000" / name, _rows(layout, index, begin))
        lines.append({"episode_index": index, "tasks": one.names, "length": length})
        begin += length
    _write_lines(root / "meta" / "episodes.jsonl", lines)
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(layout.task_names)]
    _write_lines(root / "meta" / "tasks.jsonl", tasks)


def _write_v3(root: Path, layout: Layout) -> None:
    begin, rows = 0, []
    data: dict[str, list[Any]] = {}
    shown: list[list[int]] = []  # numbers of the frames of each video file
    for index, one in enumerate(layout.episodes):
        length = len(one.tasks)
        if index % layout.per_file == 0:
            shown.append([])
        start = len(shown[-1])
        shown[-1] += range(begin, begin + length)
        for name, values in _rows(layout, index, begin).items():
            data.setdefault(name, []).extend(values)
        row: dict[str, Any] = {
            "episode_index": index, "tasks": one.names, "length": length,
            "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": begin, "dataset_to_index": begin + length,
        }  # fmt: skip
        for camera in layout.cameras:
            row |= {
                f"videos/{camera}/chunk_index": 0,
                f"videos/{camera}/file_index": len(shown) - 1,
                f"videos/{camera}/from_timestamp": start / FPS,
                f"videos/{camera}/to_timestamp": (start + length) / FPS,
            }
        rows.append({**row, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        begin += length
    for number, numbers in enumerate(shown):
        for c, camera in enumerate(layout.cameras):
            path = root / "videos" / camera / "chunk-000" / f"file-{number:03d}.mp4"
            _write_video(path, [value + 32 * c for value in numbers])
    write_table(root / "data" / "chunk-000" / "file-000.parquet", data)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_table(root / "meta" / "episodes" / "chunk-000" / "file-000.parquet", columns)
    names = layout.task_names
    # pandas writes the index, which holds the texts, after the columns
    write_table(
        root / "meta" / "tasks.parquet",
        {"task_index": list(range(len(names))), "__index_level_0__": names},
    )


def change_table(path: Path, change: Any) -> None:
    """Rewrite a parquet file with its columns changed in place by a function."""
    columns = pq.read_table(path).to_pydict()
    change(columns)
    write_table(path, columns)
