"""A dataset that has changed since its index was made is refused; in all other cases the stage is already done."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from support.clips import (
    add_bridge_clip,
    add_folder_clip,
    write_bridge_dataset,
    write_clip,
    write_videos_dataset,
)
from support.lerobot_datasets import Layout, recordings, write_lerobot

from cosmos_worker.cli import main
from cosmos_worker.data import changed_source

EARLIER = 1_700_000_000
"""Seconds since 1970; 2023-11-14T22:13:20Z."""


class Stage:
    """prepare-dataset of one folder, by its command line."""

    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.target = tmp_path / "data", tmp_path / "index"
        self._capsys, self._document = capsys, tmp_path / "stage.yaml"

    def run(self, layout: str = "bridge", source: object = None) -> tuple[int, str]:
        """Exit code and last line of the log."""
        video = {"num_pixel_frames": 9, "height": 32, "width": 48, "window_stride": 8}
        document = {
            "key": "k",
            "target_uri": str(self.target),
            "data_uri": str(self.target.parent / "fetched"),
            "source": source or {"path": str(self.root)},
            "layout": layout,
            "video": video,
            "max_bad_fraction": 0.5,
        }
        self._document.write_text(yaml.safe_dump(document))
        self._capsys.readouterr()
        code = main(["prepare-dataset", "--config", str(self._document)])
        return code, self._capsys.readouterr().err.splitlines()[-1]

    def files(self) -> dict[str, bytes]:
        """Files that the stage has left."""
        return {path.name: path.read_bytes() for path in self.target.iterdir()}


@pytest.fixture
def stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setenv("COSMOS_TERMINATION_LOG", str(tmp_path / "termination"))
    monkeypatch.setattr(changed_source, "is_mounted", lambda folder: folder == tmp_path / "data")
    return Stage(tmp_path, capsys)


def test_folder_of_the_image_has_other_times_in_another_image(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bridge_dataset(stage.root)
    assert stage.run()[0] == 0
    for path in stage.root.rglob("*.json"):
        os.utime(path, (EARLIER, EARLIER))
    assert stage.run()[0] == 2

    monkeypatch.setattr(changed_source, "is_mounted", lambda folder: False)
    assert stage.run()[0] == 0


def test_what_is_mounted_is_known() -> None:
    assert changed_source.is_mounted(Path("/proc/self/fd"))
    assert not changed_source.is_mounted(Path("/etc"))


def age(root: Path) -> None:
    for path in root.rglob("*"):
        os.utime(path, (EARLIER, EARLIER))


def refuse(stage: Stage, first: str, counts: str, layout: str = "bridge") -> str:
    before = stage.files()
    code, said = stage.run(layout)
    assert code == 2
    assert f"DataError: dataset.source.path {stage.root}: {stage.root} has changed since" in said
    assert f"{counts} differs, first {first} (" in said
    assert "give the changed dataset another spec.dataset.name" in said
    assert stage.files() == before
    return said


def test_unchanged_folder_is_already_done(stage):
    write_bridge_dataset(stage.root, train=2, val=1)
    assert stage.run()[0] == 0
    before = stage.files()
    for path in stage.root.rglob("*.*"):
        os.utime(path, (1, path.stat().st_mtime))  # read since

    code, said = stage.run()

    assert code == 0
    assert "already done" in said
    assert stage.files() == before


def test_what_the_stage_does_not_read_may_change(stage):
    write_bridge_dataset(stage.root, train=1, val=0)
    stage.run()

    for name in ("t5_xxl/train0.pickle", "annotation/train/.hidden.json", "videos/train/other.mp4"):
        (stage.root / name).parent.mkdir(exist_ok=True)
        (stage.root / name).write_bytes(b"new")

    assert "already done" in stage.run()[1]


def test_replaced_clip_is_refused(stage):
    write_bridge_dataset(stage.root, train=2, val=1)
    age(stage.root)
    stage.run()
    video = stage.root / "videos/train/train1/rgb.mp4"
    size = video.stat().st_size

    os.utime(video, (EARLIER + 60, EARLIER + 60))  # other content of the same length

    said = refuse(stage, "videos/train/train1/rgb.mp4", "6 files then, 6 now, 1")
    times = ("2023-11-14T22:13:20Z then", "2023-11-14T22:14:20Z now")
    assert ", ".join(f"{size} bytes of {time}" for time in times) in said
    assert re.search(r"index was made at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ: ", said)

    os.utime(video, (EARLIER, EARLIER))
    assert "already done" in stage.run()[1]


def test_added_clip_is_refused(stage):
    write_bridge_dataset(stage.root, train=2, val=1)
    stage.run()
    add_bridge_clip(stage.root, "new", "val")

    said = refuse(stage, "annotation/val/new.json", "6 files then, 7 now, 1")

    assert "(absent then, " in said


def test_repaired_clip_is_refused(stage):
    write_bridge_dataset(stage.root, train=2, val=1)
    video = add_bridge_clip(stage.root, "late")
    content = video.read_bytes()
    video.unlink()
    stage.run()
    video.write_bytes(content)

    refuse(stage, "videos/train/late/rgb.mp4", "7 files then, 8 now, 1")


@pytest.mark.parametrize("layout", ["bridge", "videos"])
def test_removed_clip_is_refused(stage, layout):
    write = write_bridge_dataset if layout == "bridge" else write_videos_dataset
    write(stage.root, 2)
    stage.run(layout)
    folder = "videos/train/train0/rgb" if layout == "bridge" else "videos/clip0"
    (stage.root / f"{folder}.mp4").unlink()

    number = len(json.loads((stage.target / "source.json").read_text())["files"])
    said = refuse(
        stage, f"{folder}.mp4", f"{number} files then, {number - 1} now, 1", layout=layout
    )

    assert said.count("absent now") == 1


def test_videos_and_captions_of_a_folder_count(stage):
    write_videos_dataset(stage.root / "below", clips=2)
    stage.run("videos")
    add_folder_clip(stage.root / "below", "new", "a caption")
    (stage.root / "below/metas/clip0.txt").write_text("another caption")

    before = stage.files()
    code, said = stage.run("videos")

    assert code == 2
    assert "4 files then, 6 now, 3 differ, first metas/clip0.txt (" in said
    assert stage.files() == before


def test_index_of_an_older_version_is_done(stage):
    write_bridge_dataset(stage.root, train=1, val=0)
    stage.run()
    (stage.target / "source.json").unlink()
    add_bridge_clip(stage.root, "new")

    assert stage.run()[0] == 0


def test_folder_that_is_gone_is_done(stage):
    write_bridge_dataset(stage.root, train=1, val=0)
    stage.run()

    shutil.rmtree(stage.root)
    assert "already done" in stage.run()[1]
    stage.root.mkdir()  # where nothing is mounted
    assert "already done" in stage.run()[1]


def test_damaged_record_is_told(stage):
    write_bridge_dataset(stage.root, train=1, val=0)
    stage.run()
    (stage.target / "source.json").write_text("[]")

    code, said = stage.run()

    assert code == 2
    assert "source.json: damaged (" in said


def test_clips_of_subfolders_and_other_endings_count(stage):
    add_folder_clip(stage.root, "in/a", "a caption").rename(stage.root / "videos/in/a.mov")
    add_folder_clip(stage.root, "b", "a caption")
    assert stage.run("videos")[0] == 0
    assert "already done" in stage.run("videos")[1]
    os.utime(stage.root / "videos/in/a.mov", (EARLIER, EARLIER))

    refuse(stage, "videos/in/a.mov", "4 files then, 4 now, 1", layout="videos")


def test_odd_files_are_no_change(stage):
    write_videos_dataset(stage.root, clips=4)
    (stage.root / "videos/loop.mp4").symlink_to("loop.mp4")
    (stage.root / "videos/up").symlink_to("..")
    for name in (b"caf\xe9.txt", b"x\n.txt"):
        Path(os.fsdecode(os.fsencode(stage.root / "metas") + b"/" + name)).touch()
    assert stage.run("videos")[0] == 0

    assert "already done" in stage.run("videos")[1]


@pytest.mark.parametrize(
    ("layout", "changed"),
    [
        ("lerobot", "meta/info.json"),
        ("lerobot", "meta/tasks.parquet"),
        ("lerobot", "meta/episodes/chunk-000/file-000.parquet"),
        ("lerobot", "data/chunk-000/file-000.parquet"),
        ("lerobot", "videos/observation.images.front/chunk-000/file-000.mp4"),
        ("jsonl", "dataset.jsonl"),
        ("jsonl", "a.mp4"),
        ("jsonl", "train/metadata.csv"),
    ],
)
def test_lists_and_tables_of_the_other_layouts_count(stage, layout, changed):
    if layout == "lerobot":
        write_lerobot(stage.root, Layout(recordings(9, 9)))
    else:
        write_clip(stage.root / "a.mp4")
        (stage.root / "dataset.jsonl").write_text('{"video": "a.mp4", "caption": "go"}\n')
    assert stage.run(layout)[0] == 0
    assert stage.run(layout)[0] == 0

    path = stage.root / changed
    if path.exists():
        os.utime(path, (EARLIER, EARLIER))
    else:
        path.parent.mkdir()
        path.touch()

    code, line = stage.run(layout)
    assert (code, f"1 differs, first {changed}" in line) == (2, True), line
