"""prepare-dataset on small real datasets."""

import json
import logging
import os
import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.clips import (
    add_bridge_clip,
    add_folder_clip,
    write_bridge_dataset,
    write_clip_with_times,
    write_videos_dataset,
)
from support.fake_hub import point_client, serve_hub
from support.lerobot_datasets import Layout, recordings, write_lerobot
from support.numbered_videos import Kind, write_numbered

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.index import read_index
from cosmos_worker.errors import DataError
from cosmos_worker.runtime.cgroup import available_cpus
from cosmos_worker.stages.prepare_dataset import run
from cosmos_worker.storage.volumes import (
    Volumes,
    sha256_of_file,
)

INTERLACED = Kind("mpeg2video", options={"flags": "+ildct", "top": "1"})
INDEX_FILES = ["index.jsonl", "report.md", "source.json", "summary.json"]


def make_config(source: dict, **fields) -> PrepareDatasetConfig:
    return PrepareDatasetConfig.model_validate(
        {
            "key": "k",
            "target_uri": "datasets://job/index",
            "data_uri": "datasets://job/data",
            "source": source,
            "layout": "bridge",
            "video": {"num_pixel_frames": 9, "height": 32, "width": 48, "window_stride": 8},
            **fields,
        }
    )


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    (tmp_path / "datasets").mkdir()
    return Volumes({"datasets": tmp_path / "datasets", "models": tmp_path / "models"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "datasets/job/index"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pack(folder: Path, archive: Path) -> str:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname="opensource_robotdata/bridge")
    return archive.as_uri()


def test_run_indexes_a_bridge_dataset(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=1)

    result = run(make_config({"path": str(root)}), volumes)

    index = read_index(target)
    assert index.root == root
    assert [w.window_id for w in index.windows("train")][:3] == [
        "train/train0@0",
        "train/train0@8",
        "train/train1@0",
    ]
    assert index.clip("val/val0").caption == "push the val0 cube left"
    assert result == {
        "clips": {"found": 4, "kept": 4, "bad": 0, "too_short": 0},
        "splits": {
            "train": {"clips": 3, "windows": 6},
            "val": {"clips": 1, "windows": 2},
            "test": {"clips": 0, "windows": 0},
        },
        "windows": 8,
        "dropped": {},
        "captions": 4,
        "index_sha256": sha256_of_file(target / "index.jsonl"),
    }
    summary = json.loads((target / "summary.json").read_text())
    assert (summary["fps"], summary["sizes"]) == ({"10": 4}, {"32x48": 4})


def test_run_indexes_a_folder_of_videos(tmp_path: Path, volumes, target):
    root = write_videos_dataset(tmp_path / "data", clips=2)

    run(make_config({"path": str(root)}, layout="videos"), volumes)

    assert read_index(target).captions == ["a square moves, take 0", "a square moves, take 1"]


def test_run_writes_an_index_that_moves_with_its_volume(tmp_path: Path, volumes):
    write_bridge_dataset(tmp_path / "datasets/bridge", train=1, val=0)
    run(make_config({"path": "datasets://bridge"}), volumes)

    moved = (tmp_path / "datasets").rename(tmp_path / "elsewhere")

    index = read_index(moved / "job/index")
    assert index.video_path(index.clips[0]).is_file()


def test_run_gives_the_same_index_wherever_the_dataset_lies(tmp_path: Path, volumes):
    digests = {
        run(make_config({"path": str(write_bridge_dataset(tmp_path / name, 2, 1))}), volumes)[
            "index_sha256"
        ]
        for name in ("a", "b")
    }

    assert len(digests) == 1


def test_run_drops_bad_clips_below_the_limit_and_tells(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=0)
    add_bridge_clip(root, "gone").unlink()
    add_bridge_clip(root, "short", frames=5)

    result = run(make_config({"path": str(root)}, max_bad_fraction=0.2), volumes)

    assert result["clips"] == {"found": 5, "kept": 3, "bad": 1, "too_short": 1}
    assert result["dropped"] == {"too_short": 1, "video_missing": 1}
    report = (target / "report.md").read_text()
    assert "5 clips, 3 kept, 1 unusable, 1 shorter than the window" in report
    assert (
        "| annotation/train/gone.json | video_missing | its video videos/train/gone/rgb.mp4 does "
        "not exist | add the video or remove what names it |"
    ) in report
    assert "| videos/train/short/rgb.mp4 | too_short | 5 frames, one window takes 9 |" in report


def test_run_fails_above_the_limit_and_keeps_the_earlier_index(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=0)
    config = make_config({"path": str(root)}, max_bad_fraction=0.1)
    run(config, volumes)
    before = files_of(target)
    add_bridge_clip(root, "silent", texts=[""])

    with pytest.raises(DataError) as caught:
        run(config, volumes)

    report = target / "report-failed.md"
    assert str(caught.value) == (
        f"{root}: 1 of 4 clips (25.0%) is unusable (caption_empty 1), max_bad_fraction allows 10.0%; repair or "
        f"remove them (all in {report}) or raise max_bad_fraction; first: (1) annotation/train/silent.json: "
        "texts[0] is ''; write a caption or remove the clip"
    )
    assert "silent.json | caption_empty" in report.read_text()
    after = files_of(target)
    assert after.pop(".checked.jsonl")
    assert after == {**before, "report-failed.md": report.read_bytes()}


def test_run_removes_the_failed_report_once_it_succeeds(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=1, val=0)
    target.mkdir(parents=True)
    (target / "report-failed.md").write_text("old")

    run(make_config({"path": str(root)}), volumes)

    assert sorted(files_of(target)) == INDEX_FILES


def spoil(video: Path) -> None:
    """Replace a video by noise with the same size and modification time."""
    status = video.stat()
    video.write_bytes(b"x" * status.st_size)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_run_decodes_no_video_again_after_a_failure(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=3, val=0)
    missing = add_bridge_clip(root, "late")
    video = missing.read_bytes()
    missing.unlink()
    config = make_config({"path": str(root)}, max_bad_fraction=0)
    with pytest.raises(DataError, match="1 of 4 clips"):
        run(config, volumes)

    spoil(root / "videos/train/train0/rgb.mp4")
    missing.write_bytes(video)
    result = run(config, volumes)

    assert result["clips"] == {"found": 4, "kept": 4, "bad": 0, "too_short": 0}
    assert sorted(files_of(target)) == INDEX_FILES
    with pytest.raises(DataError, match=r"videos/train/train0/rgb\.mp4: Invalid data"):
        run(config, volumes)


def test_run_uses_the_cpus_of_the_container_unless_told(tmp_path: Path, volumes, caplog):
    source = {"path": str(write_bridge_dataset(tmp_path / "data", train=2, val=0))}

    with caplog.at_level(logging.INFO):
        run(make_config(source, num_workers=3), volumes)
        run(make_config(source), volumes)

    text = caplog.text
    assert "clips=2 videos_known=0 workers=3" in text
    assert f"clips=2 videos_known=0 workers={available_cpus()}" in text
    assert "read-annotations files=2/2 per_s=" in text
    assert "check-clips videos=2/2 per_s=" in text


def test_run_refuses_dataset_smaller_than_one_batch(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=2, val=3)
    add_bridge_clip(root, "short", frames=5)

    message = (
        r"the dataset is smaller than one batch: 4 training windows of 9 frames, 8 needed \(0 clips unusable, "
        r"1 shorter than the window, .*report-failed\.md\); lower trainer\.global_batch_size or add data"
    )
    with pytest.raises(DataError, match=message):
        run(make_config({"path": str(root)}, min_clips=8), volumes)

    assert not (target / "index.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"videos/bad\.mp4: 0 bytes; copy or fetch it again if it is cut"),
        (
            b"no video" * 100,
            r"videos/bad\.mp4: Invalid data .* after 0 of unknown frames; copy or fetch it",
        ),
    ],
)
def test_run_names_broken_video(tmp_path: Path, volumes, content, message):
    root = write_videos_dataset(tmp_path / "data", clips=1)
    add_folder_clip(root, "bad", "a caption").write_bytes(content)

    with pytest.raises(DataError, match=message):
        run(make_config({"path": str(root)}, layout="videos"), volumes)


def test_run_names_caption_that_is_not_utf8(tmp_path: Path, volumes):
    root = write_videos_dataset(tmp_path / "data", clips=1)
    add_folder_clip(root, "bad", b"caf\xe9")

    message = r"metas/bad\.txt: not UTF-8: byte 0xe9 at position 3; save the file as UTF-8"
    with pytest.raises(DataError, match=message):
        run(make_config({"path": str(root)}, layout="videos"), volumes)


def test_run_names_path_that_does_not_exist(volumes):
    message = r"dataset\.source\.path datasets://gone: .* is no folder; correct the path or mount"
    with pytest.raises(DataError, match=message):
        run(make_config({"path": "datasets://gone"}), volumes)


def test_run_fetches_an_archive_once(tmp_path: Path, volumes, target):
    url = pack(write_bridge_dataset(tmp_path / "made", train=1, val=0), tmp_path / "a.tar.gz")
    config = make_config({"url": {"url": url, "sha256": sha256_of_file(tmp_path / "a.tar.gz")}})

    first = run(config, volumes)
    (tmp_path / "a.tar.gz").unlink()

    assert run(config, volumes) == first
    assert read_index(target).root == tmp_path / "datasets/job/data/opensource_robotdata/bridge"
    assert sorted(path.name for path in (tmp_path / "datasets/job").iterdir()) == ["data", "index"]


def test_run_leaves_nothing_of_a_refused_archive(tmp_path: Path, volumes):
    link = tmp_path / "made/videos/link.mp4"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/passwd")
    url = pack(tmp_path / "made", tmp_path / "a.tar.gz")

    with pytest.raises(
        DataError, match=r"bridge/videos/link\.mp4' is a link to '/etc/passwd'; pack"
    ):
        run(make_config({"url": {"url": url}}), volumes)

    assert list((tmp_path / "datasets/job").iterdir()) == []


def test_run_does_not_fetch_over_other_data(tmp_path: Path, volumes):
    url = pack(write_bridge_dataset(tmp_path / "made", train=1, val=0), tmp_path / "a.tar.gz")
    held = tmp_path / "datasets/job/data/precious.txt"
    held.parent.mkdir(parents=True)
    held.write_text("mine")

    message = r"data: already holds files of unknown origin, not .*a\.tar\.gz.*; remove the folder"
    with pytest.raises(DataError, match=message):
        run(make_config({"url": {"url": url}}), volumes)

    assert held.read_text() == "mine"


def test_run_fetches_from_the_hub(tmp_path: Path, volumes, target, monkeypatch):
    write_bridge_dataset(tmp_path / "repo", train=1, val=0)
    config = make_config({"hugging_face": {"repo": "owner/name"}})

    with serve_hub(tmp_path / "repo", "dataset") as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        run(config, volumes)

    run(config, volumes)  # without a server
    assert read_index(target).root == tmp_path / "datasets/job/data"
    assert sorted(path.name for path in (tmp_path / "datasets/job").iterdir()) == ["data", "index"]


def test_run_tells_what_is_to_be_known(tmp_path: Path, volumes, target, caplog):
    root = write_videos_dataset(tmp_path / "data", clips=4)
    (root / "videos/x.gif").touch()
    (root / "metas/x|<b>\n`.txt").write_text("a caption")
    config = make_config(
        {"path": str(root)},
        layout="videos",
        video={"num_pixel_frames": 9, "height": 48, "width": 32},
        max_bad_fraction=0.2,
        validation_fraction=0.25,
    )

    with caplog.at_level(logging.INFO):
        result = run(config, volumes)

    assert {name: split["clips"] for name, split in result["splits"].items()} == {
        "train": 3,
        "val": 1,
        "test": 0,
    }
    (held,) = [clip for clip in read_index(target).clips if clip.split == "val"]
    assert held.clip_id.startswith("val/clip")
    assert (result["distorted"], result["held_out"], result["passed_over"]) == (4, 1, 1)
    report = (target / "report.md").read_text()
    summary = json.loads((target / "summary.json").read_text())
    held_out = "1 of 4 training episodes (1 clip) is held out as split val, drawn by seed 0"
    stretched = "stretched by 125 % in height"
    for text in (report, caplog.text):
        assert held_out in text
        assert stretched in text
        assert "videos/**/*.gif" in text
    assert (
        "| metas/x\\|&lt;b>\\\\n\\`.txt | name_unusable | its name has '\\\\n', a control" in report
    )
    assert "| 32x48 | 48x32 | 4 | stretched by 125 % in height |" in report
    assert f"| {held.clip_id} | 32x48 | 48x32 | {stretched} |" in report
    assert "- captions per clip: 1 (4 clips)" in report
    assert summary["held_out"]["episodes"] == 1
    assert (summary["distortion"]["clips"], summary["distortion"]["fit"]) == (4, "stretch")
    assert summary["passed_over"] == {"videos/**/*.gif": 1}


def test_run_takes_odd_files_for_bad_clips(tmp_path: Path, volumes, target):
    root = write_bridge_dataset(tmp_path / "data", train=4, val=0)
    folder = root / "annotation/train"
    (folder / "folder.json").mkdir()
    (folder / "loop.json").symlink_to("loop.json")
    os.mkfifo(folder / "pipe.json")
    add_bridge_clip(root, "long", videos=[{"video_path": "x/" * 5000}])
    add_bridge_clip(root, "nul", videos=[{"video_path": "x\0.mp4"}])
    add_bridge_clip(root, "lone", episode_id="\udce9")
    (folder / "deep.json").write_text("[" * 10**5)

    result = run(make_config({"path": str(root)}, max_bad_fraction=0.7), volumes)

    assert result["clips"] == {"found": 11, "kept": 4, "bad": 7, "too_short": 0}
    assert result["dropped"] == {"annotation_broken": 1, "file_unreadable": 3, "name_unusable": 3}


def test_run_tells_which_frames_resampling_takes(tmp_path: Path, volumes, target, caplog):
    root = write_videos_dataset(tmp_path / "data", clips=1, frames=20)
    times = [number * 10 for number in range(20) if number not in (7, 11)]
    write_clip_with_times(add_folder_clip(root, "drop", "two frames are missing"), times)
    caplog.set_level(logging.INFO)
    video = {"num_pixel_frames": 9, "height": 32, "width": 48, "window_stride": 8, "fps": 10}

    run(
        make_config({"path": str(root)}, layout="videos", frame_rate="resample", video=video),
        volumes,
    )

    assert "resampled clips=1 frames_repeated=2 frames_left_out=0" in caplog.text
    assert read_index(target).clip("train/drop").num_frames == 20
    line = "- frames taken at equal intervals: 1 clip changed, 2 frames repeated, 0 left out"
    assert line in (target / "report.md").read_text()


def test_run_tells_what_is_lost_of_a_video(tmp_path: Path, volumes, target, caplog):
    root = write_videos_dataset(tmp_path / "data", clips=1)
    write_numbered(add_folder_clip(root, "fields", "interlaced"), INTERLACED)

    run(make_config({"path": str(root)}, layout="videos"), volumes)

    assert "video=videos/fields.mp4 note='interlaced, both fields" in caplog.text
    assert "| videos/fields.mp4 | interlaced, both fields" in (target / "report.md").read_text()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({}, r"video\.fps: is null, frame_rate 'resample' takes frames at that rate"),
        ({"buckets": [{"num_pixel_frames": 9, "height": 32, "width": 48}]}, r"buckets\.0\.fps: is null"),
    ],
)  # fmt: skip
def test_resampling_needs_a_rate(size, message):
    with pytest.raises(ValidationError, match=message):
        make_config({"path": "/data"}, frame_rate="resample", **size)


def test_the_summary_names_the_camera(tmp_path: Path, volumes, target):
    layout = Layout(recordings(9), cameras=("observation.images.front", "observation.images.wrist"))
    root = write_lerobot(tmp_path / "data", layout)

    run(make_config({"path": str(root)}, layout="lerobot", camera_name="wrist"), volumes)

    assert json.loads((target / "summary.json").read_text())["camera_name"] == "wrist"
