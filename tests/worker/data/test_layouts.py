"""data/bridge.py, data/folder.py and data/candidate.py: what the two layouts name."""

import errno
import json
import os
from pathlib import Path

import pytest
from support.clips import (
    add_bridge_clip,
    add_folder_clip,
    write_bridge_dataset,
    write_videos_dataset,
)

from cosmos_worker.data.layouts.bridge import list_bridge
from cosmos_worker.data.layouts.by_name import find_root
from cosmos_worker.data.layouts.candidate import Candidate
from cosmos_worker.data.layouts.videos import list_videos
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

    assert str(problem).startswith("annotation/train/x.json: camera 2 of 1 videos; choose another")


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


def test_list_videos_pairs_videos_with_captions(tmp_path: Path):
    write_videos_dataset(tmp_path, clips=2)
    (tmp_path / "videos/._clip0.mp4").write_bytes(b"resource fork of a macOS archive")

    listing = list_videos(tmp_path)

    assert listing.bad == ()
    assert [(c.clip_id, c.video, c.captions) for c in listing.candidates] == [
        ("train/clip0", "videos/clip0.mp4", ("a square moves, take 0",)),
        ("train/clip1", "videos/clip1.mp4", ("a square moves, take 1",)),
    ]


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        (None, r"videos/x\.mp4: its caption videos/x\.txt or metas/x\.txt does not exist; add the"),
        (b"", r"metas/x\.txt: no text in it; write a caption"),
        (b" \n", r"metas/x\.txt: no text in it; write a caption"),
        (b"caf\xe9", r"metas/x\.txt: not UTF-8: byte 0xe9 at position 3; save the file as UTF-8"),
    ],
)
def test_list_videos_reports_bad_caption(tmp_path: Path, caption, message):
    add_folder_clip(tmp_path, "x", caption)

    (problem,) = list_videos(tmp_path).bad

    with pytest.raises(DataError, match=f"^{message}"):
        raise problem


def test_list_videos_reports_caption_without_video(tmp_path: Path):
    add_folder_clip(tmp_path, "x", "a caption").unlink()

    (problem,) = list_videos(tmp_path).bad

    assert str(problem).startswith("metas/x.txt: its video videos/x.mp4 does not exist; add the")


def test_list_videos_drops_videos_of_one_name(tmp_path: Path):
    video = add_folder_clip(tmp_path, "x", "a caption")
    video.with_suffix(".MOV").write_bytes(video.read_bytes())
    add_folder_clip(tmp_path, "y", "a caption")

    listing = list_videos(tmp_path)

    assert [clip.clip_id for clip in listing.candidates] == ["train/y"]
    assert [(one.file, one.reason, one.value) for one in listing.bad] == [
        ("videos/x.MOV", "clip_id_repeated", "clip 'x' is also that of videos/x.mp4"),
        ("videos/x.mp4", "clip_id_repeated", "clip 'x' is also that of videos/x.MOV"),
    ]


def test_find_root_descends_to_the_only_dataset(tmp_path: Path):
    root = write_bridge_dataset(tmp_path / "opensource_robotdata" / "bridge", train=1, val=0)

    assert find_root(tmp_path, "bridge") == root
    assert find_root(root, "bridge") == root


def test_find_root_refuses_to_choose(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / "videos").mkdir(parents=True)

    with pytest.raises(
        DataError, match=r"2 folders hold a folder videos/ \(a, b\); give the path of one"
    ):
        find_root(tmp_path, "videos")


def test_find_root_says_what_is_there(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "notes.json").write_text(json.dumps({}))

    message = (
        r"no folder annotation/, which layout 'bridge' needs; it holds clips/, notes\.json; give"
    )
    with pytest.raises(DataError, match=message):
        find_root(tmp_path, "bridge")


def write_pair(root: Path, name: str, caption: str | None = None) -> None:
    """A video with a text of the same name beside it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")
    path.with_suffix(".txt").write_text(caption or f"about {name}")


@pytest.mark.parametrize("folder", ["", "videos/"])
def test_captions_beside_the_videos_are_theirs(tmp_path: Path, folder: str):
    for name in ("a.mp4", "in/b.MOV"):
        write_pair(tmp_path, folder + name)
    (tmp_path / f"{folder}README.txt").write_text("where it is from")
    (tmp_path / f"{folder}c.mp4").write_bytes(b"video")

    assert find_root(tmp_path, "videos") == tmp_path
    listing = list_videos(tmp_path)

    assert [(one.clip_id, one.video, one.captions[0]) for one in listing.candidates] == [
        ("train/a", f"{folder}a.mp4", f"about {folder}a.mp4"),
        ("train/in/b", f"{folder}in/b.MOV", f"about {folder}in/b.MOV"),
    ]
    ((file, value),) = [(one.file, one.value) for one in listing.bad]
    assert (file, value) == (
        f"{folder}c.mp4",
        f"its caption {folder}c.txt or metas/c.txt does not exist",
    )
    assert listing.passed_over == {"texts without a video of the same name": 1}
    assert listing.notes == ("captions are the texts beside the videos, there is no metas/",)


def test_with_metas_texts_beside_the_videos_are_passed_over(tmp_path: Path):
    write_pair(tmp_path, "videos/a.mp4")
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas/a.txt").write_text("the caption")

    listing = list_videos(tmp_path)

    assert [one.captions for one in listing.candidates] == [("the caption",)]
    assert listing.passed_over == {"videos/**/*.txt": 1}
    assert listing.notes == ()


def test_a_pair_whose_half_is_no_file_is_one_bad_clip(tmp_path: Path):
    write_pair(tmp_path, "a.mp4")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt").mkdir()
    write_pair(tmp_path, "b.mp4")
    (tmp_path / "b.mp4").unlink()
    (tmp_path / "b.mp4").symlink_to("b.mp4")

    bad = list_videos(tmp_path).bad

    assert [(one.file, one.reason) for one in bad] == [
        ("b.mp4", "file_unreadable"),
        ("a.txt", "file_unreadable"),
    ]


@pytest.mark.parametrize("folder", ["videos", "metas", "metas/in", "videos/in"])
def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
):
    for name in ("a", "in/b"):
        add_folder_clip(tmp_path, name, "a caption")
    true = os.scandir

    def scandir(path: Path) -> object:
        if Path(path) == tmp_path / folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)

    told = {problem.file: problem.value for problem in list_videos(tmp_path).bad}

    assert told[folder] == "cannot be listed: Permission denied"
