"""The dataset index as later stages read it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.data.index import (
    Clip,
    DatasetIndex,
    Window,
    read_index,
    window_starts,
    write_index,
)
from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import (
    VIDEO_READER_VERSION,
    write_json,
)


def make_clip(
    episode: str, split: str = "train", starts: tuple[int, ...] = (0,), caption="go"
) -> Clip:
    return Clip(
        f"{split}/{episode}", split, f"{episode}.mp4", (caption,), 17, 10.0, 32, 48, starts, "ab"
    )


def save(folder: Path, *clips: Clip, root: str = ".") -> Path:
    digest = write_index(folder, clips)
    facts = {"root": root, "index_sha256": digest, "video_reader": VIDEO_READER_VERSION}
    write_json(folder / "summary.json", facts)
    return folder


def test_read_index_returns_what_was_written(tmp_path: Path):
    clips = (make_clip("a", starts=(0, 4)), make_clip("b", "val", caption="line\u2028two ä"))

    index = read_index(save(tmp_path, *clips))

    assert index == DatasetIndex(tmp_path, clips)
    assert index.video_path(clips[0]) == tmp_path / "a.mp4"
    assert index.clip("val/b").caption == "line\u2028two ä"


def test_windows_are_those_of_the_split_in_order():
    index = DatasetIndex(
        Path(), (make_clip("b", starts=(0, 4)), make_clip("v", "val"), make_clip("a"))
    )

    assert index.windows("train") == [
        Window("train/b", 0),
        Window("train/b", 4),
        Window("train/a", 0),
    ]
    assert [window.window_id for window in index.windows("val")] == ["val/v@0"]
    assert index.windows("test") == []


def test_captions_are_distinct():
    index = DatasetIndex(Path(), (make_clip("a"), make_clip("b"), make_clip("c", caption="x")))

    assert index.captions == ["go", "x"]


def test_clip_names_unknown_id():
    with pytest.raises(
        DataError, match=r"clip 'train/z' is not in the index, which has 1 clip; run prepare"
    ):
        DatasetIndex(Path(), (make_clip("a"),)).clip("train/z")


def test_read_index_names_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"index\.jsonl: no such file; run prepare-dataset"):
        read_index(tmp_path)


def test_read_index_rejects_index_of_another_summary(tmp_path: Path):
    save(tmp_path, make_clip("a"))
    write_index(tmp_path, [make_clip("b")])

    with pytest.raises(DataError, match=r"digest is not .* of summary\.json"):
        read_index(tmp_path)


@pytest.mark.parametrize("line", ["{broken", json.dumps({"clip_id": "a"}), "[]"])
def test_read_index_rejects_damaged_line(tmp_path: Path, line):
    save(tmp_path, make_clip("a"))
    (tmp_path / "index.jsonl").write_text(line + "\n")

    with pytest.raises(DataError, match=r"damaged index .*run prepare-dataset again"):
        read_index(tmp_path)


def test_read_index_names_root_that_moved_away(tmp_path: Path):
    save(tmp_path, make_clip("a"), root="../gone")

    with pytest.raises(DataError, match=r"gone is no folder; put the videos back"):
        read_index(tmp_path)


@given(num_frames=st.integers(0, 200), window=st.integers(1, 60), stride=st.integers(1, 30))
def test_window_starts_are_all_that_fit(num_frames, window, stride):
    starts = window_starts(num_frames, window, stride)

    fitting = [s for s in range(num_frames) if s % stride == 0 and s + window <= num_frames]
    assert list(starts) == fitting


@pytest.mark.parametrize("version", [None, VIDEO_READER_VERSION - 1, VIDEO_READER_VERSION + 1])
def test_read_index_refuses_that_of_another_video_reader(tmp_path: Path, version):
    save(tmp_path, make_clip("a"))
    summary = tmp_path / "summary.json"
    facts = json.loads(summary.read_text())
    facts["video_reader"] = version
    write_json(summary, {key: value for key, value in facts.items() if value is not None})

    message = rf"made by version {version or 1} of the video reader, .* run prepare-dataset again"
    with pytest.raises(DataError, match=message):
        read_index(tmp_path)


def test_frames_in_file_follow_the_clip():
    clip = make_clip("a")
    part = replace(clip, first_frame=30)
    sampled = replace(clip, frame_numbers=(4, 4, 5, 7))

    assert list(clip.frames_in_file(3, 2)) == [3, 4]
    assert list(part.frames_in_file(3, 2)) == [33, 34]
    assert list(sampled.frames_in_file(1, 3)) == [4, 5, 7]


def test_read_index_returns_parts_and_samples_of_files(tmp_path: Path):
    clip = replace(
        make_clip("a"), first_frame=30, frame_numbers=(30, 30, 32), entry_points=((0, 5), (128, 70))
    )

    assert read_index(save(tmp_path, clip)).clips == (clip,)
