"""Clips of a dataset in layout ``bridge``: annotations, cameras, and annotations that are refused."""

from pathlib import Path

import pytest
from support.clips import (
    add_bridge_clip,
    write_bridge_dataset,
)

from cosmos_worker.data.layouts.bridge import list_bridge
from cosmos_worker.data.layouts.candidate import Candidate
from cosmos_worker.errors import DataError

NAME = r"annotation/train/x\.json"


def test_list_bridge_reads_splits_in_order(tmp_path: Path):
    write_bridge_dataset(tmp_path, train=2, val=1)

    listing = list_bridge(tmp_path, camera=0)

    assert listing.bad == ()
    assert [c.clip_id for c in listing.candidates] == ["train/train0", "train/train1", "val/val0"]
    assert listing.candidates[2] == Candidate(
        clip_id="val/val0",
        split="val",
        source="annotation/val/val0.json",
        video="videos/val/val0/rgb.mp4",
        captions=("push the val0 cube left",),
        num_annotated={"state": 17, "continuous_gripper_state": 17},
    )


def test_list_bridge_takes_the_chosen_camera(tmp_path: Path):
    videos = [{"video_path": "a.mp4"}, {"video_path": "b.mp4"}]
    add_bridge_clip(tmp_path, "x", videos=videos)

    assert list_bridge(tmp_path, camera=1).candidates[0].video == "b.mp4"


def test_list_bridge_uses_original_path_without_episode(tmp_path: Path):
    add_bridge_clip(tmp_path, "x", episode_id=..., original_path="/nfs/traj3")

    assert list_bridge(tmp_path, 0).candidates[0].clip_id == "train//nfs/traj3"


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"texts": ...}, "caption_missing", "texts is None; add the caption"),
        ({"texts": []}, "caption_missing", r"texts is \[\]; add the caption"),
        ({"texts": [" \n"]}, "caption_empty", r"texts\[0\] is ' \\n'; write a caption"),
        ({"texts": "push"}, "annotation_broken", "texts is 'push', not a list of strings; repair"),
        ({"texts": [3]}, "annotation_broken", r"texts is \[3\], not a list of strings"),
        ({"videos": ...}, "annotation_broken", "videos is None, not a list of videos"),
        ({"videos": [{}]}, "annotation_broken", r"videos\[0\]\.video_path is None, not a path"),
        ({"videos": [{"video_path": "../x.mp4"}]}, "video_outside", r"'\.\./x\.mp4'; name a file"),
        ({"videos": [{"video_path": "/x.mp4"}]}, "video_outside", "'/x.mp4'; name a file inside"),
        ({"episode_id": ...}, "annotation_broken", "neither episode_id nor original_path"),
        ({"state": 17}, "action_broken", "state is 17, not a list; repair the field, or remove it"),
    ],
)
def test_list_bridge_reports_bad_annotation(tmp_path: Path, fields, reason, message):
    add_bridge_clip(tmp_path, "x", **fields)

    (problem,) = list_bridge(tmp_path, camera=0).bad

    assert problem.reason == reason
    with pytest.raises(DataError, match=f"^{NAME}: .*{message}"):
        raise problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"texts": ["a"', "not JSON: Expecting .*; repair or remove the annotation"),
        (b"[1]", "holds a list, not an object; repair"),
        (b'{"texts": ["caf\xe9"]}', "not UTF-8: byte 0xe9 at position 15; save the file as UTF-8"),
    ],
)
def test_list_bridge_reports_broken_file(tmp_path: Path, content, message):
    add_bridge_clip(tmp_path, "x")
    (tmp_path / "annotation/train/x.json").write_bytes(content)

    (problem,) = list_bridge(tmp_path, camera=0).bad

    with pytest.raises(DataError, match=f"^{NAME}: {message}"):
        raise problem


def test_list_bridge_reports_camera_that_is_not_there(tmp_path: Path):
    add_bridge_clip(tmp_path, "x")

    (problem,) = list_bridge(tmp_path, camera=2).bad

    assert str(problem).startswith("annotation/train/x.json: camera 2 of 1 video; choose another")


def test_list_bridge_drops_clips_of_one_id(tmp_path: Path):
    add_bridge_clip(tmp_path, "a")
    add_bridge_clip(tmp_path, "b", episode_id="a")
    add_bridge_clip(tmp_path, "c")

    listing = list_bridge(tmp_path, camera=0)

    assert [clip.clip_id for clip in listing.candidates] == ["train/c"]
    assert [str(problem) for problem in listing.bad] == [
        f"annotation/train/{one}.json: clip id 'train/a' is also that of annotation/train/{other}.json; "
        "rename one of them, or give each an episode_id of its own"
        for one, other in ("ab", "ba")
    ]


def test_list_bridge_refuses_dataset_without_annotations(tmp_path: Path):
    (tmp_path / "annotation/train").mkdir(parents=True)

    with pytest.raises(
        DataError, match=r"annotation: no \*\.json in train, val, test \(no files\)"
    ):
        list_bridge(tmp_path, camera=0)
