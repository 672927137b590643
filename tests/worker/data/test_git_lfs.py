"""Datasets that were cloned without Git LFS."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.clips import write_bridge_dataset, write_videos_dataset

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.errors import DataError
from cosmos_worker.stages.prepare_dataset import run
from cosmos_worker.storage.file_kinds import is_pointer
from cosmos_worker.storage.volumes import Volumes

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n"


def prepare(tmp_path: Path, root: Path, layout: str, **fields: object) -> dict:
    config = {
        "key": "k",
        "target_uri": "datasets://job/index",
        "data_uri": "datasets://job/data",
        "source": {"path": str(root)},
        "layout": layout,
        "video": {"num_pixel_frames": 9, "height": 32, "width": 48, "window_stride": 8},
        **fields,
    }
    volumes = Volumes({"datasets": tmp_path / "datasets"})
    return run(PrepareDatasetConfig.model_validate(config), volumes)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(POINTER, True), (POINTER.replace("https", "http"), False), ("version 2", False), ("", False)],
)
def test_is_pointer_looks_at_the_first_bytes(tmp_path: Path, content: str, expected: bool):
    (tmp_path / "a").write_text(content)

    assert is_pointer(tmp_path / "a") is expected


def test_dataset_whose_videos_are_pointers_is_one_error(tmp_path: Path):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=0)
    for video in root.rglob("*.mp4"):
        video.write_text(POINTER)

    message = (
        r"data: 3 of 3 files are Git LFS pointers instead of content, such as "
        r"videos/train/train0/rgb\.mp4; run 'git lfs pull'"
    )
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, root, "bridge")

    assert not (tmp_path / "datasets/job/index/report-failed.md").exists()


@pytest.mark.parametrize(
    ("layout", "pattern"), [("bridge", "train1.json"), ("videos", "clip1.txt")]
)
def test_single_pointer_in_place_of_words_is_refused(tmp_path: Path, layout: str, pattern: str):
    write = {"bridge": write_bridge_dataset, "videos": write_videos_dataset}[layout]
    root = write(tmp_path / "data", 3)
    (pointer,) = root.rglob(pattern)
    pointer.write_text(POINTER)

    with pytest.raises(DataError, match=rf"Git LFS pointer .* such as \S+{pattern}; run 'git lfs"):
        prepare(tmp_path, root, layout, max_bad_fraction=1.0)


def test_few_videos_that_are_pointers_are_dropped_and_told(tmp_path: Path, caplog):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=0)
    (root / "videos/train/train1/rgb.mp4").write_text(POINTER)

    with caplog.at_level(logging.WARNING):
        result = prepare(tmp_path, root, "bridge", max_bad_fraction=0.5)

    assert result["clips"] == {"found": 3, "kept": 2, "bad": 1, "too_short": 0}
    assert "1 of 3 files is a Git LFS pointer" in caplog.text


def test_some_pointers_to_videos_of_any_ending_cost_their_clips_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    root = write_videos_dataset(tmp_path / "data", clips=3)
    (root / "videos/clip1.mp4").unlink()
    (root / "videos/clip1.mpg").write_text(POINTER)

    with caplog.at_level(logging.WARNING):
        result = prepare(tmp_path, root, "videos", max_bad_fraction=0.5)

    assert result["clips"] == {"found": 3, "kept": 2, "bad": 1, "too_short": 0}
    assert "such as videos/clip1.mpg; run 'git lfs pull'" in caplog.text
