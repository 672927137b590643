"""Clips of a dataset in layout ``videos``: pairs of video and caption, and files without their other half."""

import errno
import os
from pathlib import Path

import pytest
from support.clips import (
    add_folder_clip,
    write_videos_dataset,
)

from cosmos_worker.data.layouts.by_name import find_root
from cosmos_worker.data.layouts.videos import list_videos
from cosmos_worker.errors import DataError


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
