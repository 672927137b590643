"""Files of a dataset: subfolders, endings and odd names are found or reported, in two layouts."""

import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.clips import add_bridge_clip, add_folder_clip, annotation, write_clip

from cosmos_worker.data.dataset_files import MAX_KINDS, find_files, find_video, refuse_links
from cosmos_worker.data.layouts.bridge import (
    list_bridge,
    read_annotation,
)
from cosmos_worker.data.layouts.candidate import Listing
from cosmos_worker.data.layouts.videos import list_videos
from cosmos_worker.data.problems import BadClip
from cosmos_worker.errors import DataError

NFC, NFD = "caf\u00e9", "cafe\u0301"


def outcomes(listing: Listing) -> tuple[list[str], dict[str, str]]:
    """Ids of usable clips; file → reason of the others."""
    return (
        [clip.clip_id for clip in listing.candidates],
        {problem.file: problem.reason for problem in listing.bad},
    )


def test_videos_of_all_endings_and_folders_are_clips(tmp_path: Path):
    video = add_folder_clip(tmp_path, "a", "a caption")
    endings = ("MP4", "mov", "mkv", "webm", "avi", "m4v", "ts", "mpg", "MPEG")
    for ending in endings:
        for folder, name in (("videos", f"in/{ending}.{ending}"), ("metas", f"in/{ending}.txt")):
            (tmp_path / folder / "in").mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(
                video.read_bytes() if folder == "videos" else b"c"
            )

    listing = list_videos(tmp_path)

    ids, bad = outcomes(listing)
    assert ids == ["train/a", *(f"train/in/{ending}" for ending in sorted(endings))]
    assert bad == {}
    assert listing.candidates[1].video == "videos/in/MP4.MP4"


def test_other_files_are_counted(tmp_path: Path):
    add_folder_clip(tmp_path, "a", "a caption")
    for name in ("x.gif", "in/y.GIF", "z", ".hidden", "in/.cache/w.mp4", "a.pickle"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    (tmp_path / "metas/a.json").touch()
    (tmp_path / "beside.mp4").touch()

    listing = list_videos(tmp_path)

    assert outcomes(listing) == (["train/a"], {})
    assert listing.passed_over == {
        "videos/**/*.gif": 2,
        "videos/**/* (no ending)": 1,
        "metas/**/*.json": 1,
        "videos beside videos/": 1,
    }


def test_kinds_beyond_the_most_frequent_are_counted_together(tmp_path: Path):
    add_folder_clip(tmp_path, "a", "a caption")
    for number in range(MAX_KINDS + 5):
        (tmp_path / f"videos/frame.{number}").touch()

    passed_over = list_videos(tmp_path).passed_over

    assert len(passed_over) == MAX_KINDS + 1
    assert passed_over[f"further kinds in {tmp_path.name}/"] == 5


def test_a_folder_without_videos_is_told_with_what_is_there(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.gif").touch()

    with pytest.raises(DataError, match=r"videos: no videos in it \(videos/\*\*/\*\.gif \(1\)\)"):
        list_videos(tmp_path)


@pytest.mark.parametrize(("video", "caption"), [(NFC, NFD), (NFD, NFC)])
def test_both_forms_of_an_accent_are_one_name(tmp_path: Path, video: str, caption: str):
    made = add_folder_clip(tmp_path, "x", None)
    made.rename(made.with_name(f"{video}.mp4"))
    (tmp_path / "metas").mkdir()
    (tmp_path / "metas" / f"{caption}.txt").write_bytes(f"\ufeff{NFD}\r\ngo".encode())

    (clip,) = list_videos(tmp_path).candidates

    assert (clip.clip_id, clip.video) == (f"train/{NFC}", f"videos/{video}.mp4")
    assert clip.captions == (f"{NFC}\ngo",)
    assert (tmp_path / clip.video).is_file()


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [(NFC, NFD), (NFD, NFC), (f"{NFC}/{NFC}", f"{NFD}/{NFD}"), (f"{NFC}/{NFC}", f"{NFD}/{NFC}")],
)
def test_an_annotation_finds_its_video_in_either_form(tmp_path: Path, written: str, on_disk: str):
    write_clip(tmp_path / f"videos/{on_disk}.mp4")
    videos = [{"video_path": f"videos/{written}.mp4"}]
    add_bridge_clip(tmp_path, "x", episode_id=written, texts=[written], videos=videos)

    (clip,) = list_bridge(tmp_path, camera=0).candidates

    assert clip.video == f"videos/{on_disk}.mp4"
    form = unicodedata.normalize("NFC", written)
    assert (clip.clip_id, clip.captions) == (f"train/{form}", (form,))


def test_annotations_of_other_folders_are_found_or_counted(tmp_path: Path):
    for folder in ("train", "train/in/deep", "validation", "foo", "."):
        add_bridge_clip(tmp_path, folder.replace("/", "-"), "train")
        made = tmp_path / "annotation/train" / f"{folder.replace('/', '-')}.json"
        target = tmp_path / "annotation" / folder
        target.mkdir(parents=True, exist_ok=True)
        made.rename(target / "x.JSON")
    (tmp_path / "annotation/train/notes.md").touch()

    listing = list_bridge(tmp_path, camera=0)

    ids, bad = outcomes(listing)
    assert ids == ["train/train-in-deep", "train/train", "val/validation"]
    assert bad == {}
    assert listing.passed_over == {
        "annotation/**/*.md": 1,
        "annotation/*.json, which is no split": 1,
        "annotation/foo/*.json, which is no split": 1,
        "videos below videos/ that no annotation names": 2,
    }
    assert listing.notes == ("annotation/validation/ is taken as split val",)


def test_videos_that_no_annotation_names_are_counted(tmp_path: Path):
    videos = [{"video_path": f"videos/{name}.mp4"} for name in ("first", NFC)]
    add_bridge_clip(tmp_path, "a", videos=videos)
    add_bridge_clip(tmp_path, "silent", texts=[])
    for name in ("first", NFD, "spare"):
        (tmp_path / f"videos/{name}.mp4").touch()

    listing = list_bridge(tmp_path, camera=0)

    assert outcomes(listing) == (["train/a"], {"annotation/train/silent.json": "caption_missing"})
    # spare.mp4, and the video that the helper has made for a and that its annotation does not name
    assert listing.passed_over == {"videos below videos/ that no annotation names": 2}


def test_odd_files_cost_their_clip(tmp_path: Path):
    video = add_folder_clip(tmp_path, "good", "a caption")
    for name in (
        "folder",
        "loop",
        "dangling",
        "pipe",
        "text-folder",
        "text-loop",
        "huge",
        "line\nbreak",
    ):
        (tmp_path / "metas" / f"{name}.txt").write_text("a caption")
    videos, metas = tmp_path / "videos", tmp_path / "metas"
    (videos / "folder.mp4").mkdir()
    (videos / "loop.mp4").symlink_to("loop.mp4")
    (videos / "dangling.mp4").symlink_to("/absent.mp4")
    os.mkfifo(videos / "pipe.mp4")
    for name in (b"caf\xe9.mp4", b"line\nbreak.mp4"):
        shutil.copy(video, os.fsencode(videos) + b"/" + name)
    for name in ("text-folder", "text-loop", "huge"):
        shutil.copy(video, videos / f"{name}.mp4")
        (metas / f"{name}.txt").unlink()
    (metas / "text-folder.txt").mkdir()
    (metas / "text-loop.txt").symlink_to("text-loop.txt")
    with (metas / "huge.txt").open("wb") as stream:
        stream.truncate(1 << 40)

    ids, bad = outcomes(list_videos(tmp_path))

    assert ids == ["train/good"]
    assert bad == {
        "metas/huge.txt": "file_unreadable",
        "metas/text-folder.txt": "file_unreadable",
        "metas/text-loop.txt": "file_unreadable",
        "videos/caf\\udce9.mp4": "name_unusable",
        "videos/dangling.mp4": "file_unreadable",
        "videos/folder.mp4": "file_unreadable",
        "videos/line\\nbreak.mp4": "name_unusable",
        "videos/loop.mp4": "file_unreadable",
        "videos/pipe.mp4": "file_unreadable",
    }


def test_links_to_folders_are_entered_once(tmp_path: Path):
    add_folder_clip(tmp_path, "in/a", "a caption")
    (tmp_path / "videos/in/up").symlink_to("..")
    (tmp_path / "videos/twice").symlink_to("in")

    found = find_files(tmp_path, "videos", {".mp4"})

    assert found.names == ("videos/in/a.mp4",)
    assert found.passed_over == {
        f"videos/{link}/ (a link to a folder that is read already)": 1
        for link in ("in/up", "twice")
    }


def test_link_to_a_folder_of_the_dataset_is_read(tmp_path: Path):
    add_folder_clip(tmp_path / "data/elsewhere", "a", "a caption")
    (tmp_path / "data/videos").mkdir(parents=True)
    (tmp_path / "data/videos/link").symlink_to(tmp_path / "data/elsewhere/videos")
    (tmp_path / "root").symlink_to("data")

    for root in ("data", "root"):
        assert find_files(tmp_path / root, "videos", {".mp4"}).names == ("videos/link/a.mp4",)


@pytest.mark.parametrize("link", ["videos/link", "videos/link.mp4", "videos"])
def test_link_out_of_the_dataset_is_not_followed(tmp_path: Path, link: str):
    add_folder_clip(tmp_path / "elsewhere", "a", "a caption")
    (tmp_path / "data" / link).parent.mkdir(parents=True)
    target = "elsewhere/videos/a.mp4" if link.endswith(".mp4") else "elsewhere/videos"
    (tmp_path / "data" / link).symlink_to(tmp_path / target)

    found = find_files(tmp_path / "data", "videos", {".mp4"})

    assert found.names == ()
    assert [(one.file, one.reason) for one in found.bad] == [(link, "file_unreadable")]
    assert "outside of the dataset's folder" in found.bad[0].value


@pytest.mark.parametrize("link", ["a.mp4", "in"])
def test_document_that_names_a_link_out_of_the_dataset_is_refused(tmp_path: Path, link: str):
    add_folder_clip(tmp_path / "elsewhere", "a", "a caption")
    (tmp_path / "data").mkdir()
    target = "elsewhere/videos/a.mp4" if link == "a.mp4" else "elsewhere/videos"
    (tmp_path / "data" / link).symlink_to(tmp_path / target)

    with pytest.raises(BadClip) as raised:
        find_video(tmp_path / "data", "a.mp4" if link == "a.mp4" else "in/a.mp4", "x.json", "video")

    assert raised.value.reason == "video_outside"


def test_list_that_is_a_link_out_of_the_dataset_is_refused(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/metadata.csv").symlink_to("/proc/self/environ")

    with pytest.raises(DataError, match=r"metadata\.csv: is a link to something outside"):
        refuse_links(tmp_path / "data", ["metadata.csv"])


def test_snapshot_of_a_repository_leads_to_its_blobs_alone(tmp_path: Path):
    snapshot, blobs = tmp_path / "repo/snapshots/c0ffee", tmp_path / "repo/blobs"
    for folder in (snapshot / "videos", blobs):
        folder.mkdir(parents=True)
    (blobs / "1").write_bytes(b"")
    (tmp_path / "other").write_bytes(b"")
    (snapshot / "videos/a.mp4").symlink_to("../../../blobs/1")
    (snapshot / "videos/b.mp4").symlink_to("../../../../other")

    assert find_files(snapshot, "videos", {".mp4"}).names == ("videos/a.mp4",)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("videos/a\0b.mp4", "name_unusable"),
        ("videos/\ud800.mp4", "name_unusable"),
        ("videos/a\nb.mp4", "name_unusable"),
        ("n" * 256, "name_unusable"),
        ("n/" * 3000, "name_unusable"),
        ("videos/../../x.mp4", "video_outside"),
        ("videos", "file_unreadable"),
        ("loop.mp4", "file_unreadable"),
    ],
)
def test_paths_that_no_video_can_have_cost_their_clip(tmp_path: Path, path: str, reason: str):
    (tmp_path / "videos").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")

    with pytest.raises(BadClip) as caught:
        find_video(tmp_path, path, "x.json", "videos[0].video_path")

    assert caught.value.reason == reason
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"texts": ' + "[" * 50_000, "JSON that is too deeply nested; repair"),
        ('{"episode_id": ' + "1" * 5000 + "}", "a number of too many digits; repair"),
        ('{"texts": ["a"], "texts": ["b"]}', "'texts' is given twice in one object; repair"),
    ],
)
def test_json_that_cannot_be_read_costs_its_clip(tmp_path: Path, content: str, message: str):
    (tmp_path / "annotation/train").mkdir(parents=True)
    (tmp_path / "annotation/train/x.json").write_text(content)

    (problem,) = list_bridge(tmp_path, camera=0).bad

    assert str(problem).startswith(f"annotation/train/x.json: {message}")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"texts": ["\ud800"]}, "caption_broken"),
        ({"texts": ["a\0b"]}, "caption_broken"),
        ({"texts": ["\ufeff \n"]}, "caption_empty"),
        ({"episode_id": "a\nb"}, "name_unusable"),
        ({"episode_id": "\udfff"}, "name_unusable"),
        ({"episode_id": "a" * 501}, "name_unusable"),
        ({"episode_id": True}, "annotation_broken"),
        ({"episode_id": 1.5}, "annotation_broken"),
        ({"state": [[["0"] * 6]]}, "action_broken"),
    ],
)
def test_odd_values_cost_their_clip(tmp_path: Path, fields: dict, reason: str):
    path = tmp_path / "annotation/train/x.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(annotation("x", **fields)))

    with pytest.raises(BadClip) as caught:
        read_annotation(tmp_path, path, "train", camera=0)

    assert caught.value.reason == reason
    assert str(caught.value).isprintable()


VALUE = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=5),
        st.sampled_from(
            ["", "..", "/", "\0", "\ud800", "n" * 300, "videos/train/x/rgb.mp4", 10**40]
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ("episode_id", "original_path", "texts", "videos", "state", "continuous_gripper_state")


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUE, min_size=1),
    videos=st.none() | st.lists(st.fixed_dictionaries({"video_path": VALUE}), max_size=2),
    cut=st.none() | st.integers(0, 400),
)
def test_an_annotation_is_a_clip_or_a_bad_clip(tmp_path: Path, fields, videos, cut):
    path = tmp_path / "annotation/train/x.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = annotation("x", frames=2, **{**fields, **({"videos": videos} if videos else {})})
    path.write_text(json.dumps(document)[:cut])

    listing = list_bridge(tmp_path, camera=0)

    assert listing.num_clips == 1
    for problem in listing.bad:
        assert problem.file == "annotation/train/x.json"
        assert str(problem).isprintable()
    for clip in listing.candidates:
        json.dumps([clip.clip_id, clip.video, clip.captions], ensure_ascii=False).encode()
        assert not Path(clip.video).is_absolute()
