"""Recognition of layouts: the root of a dataset, and the messages for folders without one."""

import re
from pathlib import Path

import pytest
from support.clips import write_bridge_dataset, write_videos_dataset
from support.lerobot_datasets import Layout, recordings, write_lerobot

from cosmos_worker.config.choices import DatasetLayout
from cosmos_worker.data.layouts.by_name import find_root
from cosmos_worker.data.layouts.detect import recognise_layout
from cosmos_worker.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(kind: str, root: Path) -> Path:
    if kind == "bridge":
        return write_bridge_dataset(root, train=1, val=0)
    if kind == "videos":
        return write_videos_dataset(root, clips=1)
    if kind.startswith("v"):
        return write_lerobot(root, Layout(recordings(3), kind))
    if kind == "jsonl":
        return touch(root, "train/metadata.csv")
    return touch(root, "prompts.txt", "videos.txt", "videos/a.mp4")


KINDS = {
    "bridge": ("bridge", "a dataset like Bridge; set layout: Bridge (in a stage document: bridge)"),
    "videos": ("videos", "a folder of videos/ with captions in metas/; set layout: Videos (in a stage"),
    "v3.0": ("lerobot", "a LeRobot v3.0 dataset; set layout: LeRobot (in a stage document: lerobot)"),
    "v2.1": ("lerobot", "a LeRobot v2.1 dataset; set layout: LeRobot"),
    "jsonl": ("jsonl", "a dataset with a list of its clips; set layout: Jsonl (in a stage document"),
    "pair": ("jsonl", "a dataset with a list of its clips; set layout: Jsonl"),
}  # fmt: skip
LAYOUTS: tuple[DatasetLayout, ...] = ("bridge", "videos", "lerobot", "jsonl")


@pytest.mark.parametrize("kind", KINDS)
def test_folder_of_another_layout_is_named(tmp_path: Path, kind):
    own, sentence = KINDS[kind]
    write(kind, tmp_path)

    for layout in LAYOUTS:
        if layout == own:
            assert find_root(tmp_path, layout) == tmp_path
        else:
            with pytest.raises(DataError, match=re.escape(f"this is {sentence}")):
                find_root(tmp_path, layout)


@pytest.mark.parametrize("kind", KINDS)
def test_dataset_below_the_folder_is_found_and_named(tmp_path: Path, kind):
    own, sentence = KINDS[kind]
    root = write(kind, tmp_path / "download" / "set")

    for layout in LAYOUTS:
        if layout == own:
            assert find_root(tmp_path, layout) == root
        else:
            with pytest.raises(DataError, match=re.escape(sentence)):
                find_root(tmp_path, layout)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x-train.tfrecord-00000-of-00010", "dataset_info.json"], "RLDS (TFRecord files) (1 found), which are"),
        (["demo/robot.hdf5"], "it looks like HDF5 files (1 found)"),
        (["replay.zarr/.zgroup"], "it looks like Zarr arrays"),
        (["000.tar", "001.tar"], "shards of a WebDataset (2 found), which are not read; unpack them, list videos"),
        (["all.tar.gz"], "it looks like archives (1 found), which are not read; unpack them and give the folder"),
        (["data/train-00000.parquet"], "it looks like parquet files without meta/info.json (1 found)"),
        (["in/a.mp4", "in/a.txt"], "a folder of videos with captions beside them; set layout: Videos"),
        (["a/b.MOV", "c.mp4"], "it holds 2 videos without captions; list videos and captions in"),
        (["meta_data/info.json"], "this is a LeRobot dataset of format v1, which is not read; convert it to"),
        (["notes.md"], "it holds notes.md; give the dataset's root, or the layout that it has"),
    ],
)  # fmt: skip
def test_folder_that_no_layout_reads_is_described(tmp_path: Path, names, message):
    touch(tmp_path, *names)

    with pytest.raises(DataError, match=re.escape(message)):
        find_root(tmp_path, "bridge")


def test_lerobot_with_layout_videos_is_not_taken_for_a_folder_of_videos(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3)))

    with pytest.raises(
        DataError, match=r"no folder metas/, which layout 'videos' needs; this is a L"
    ):
        find_root(tmp_path, "videos")


def test_several_datasets_are_not_chosen_from(tmp_path: Path):
    for name in ("a", "b"):
        touch(tmp_path, f"{name}/dataset.jsonl")

    with pytest.raises(
        DataError, match=r"2 folders hold a list of clips .* \(a, b\); give the path"
    ):
        find_root(tmp_path, "jsonl")


def test_absent_folder_is_told(tmp_path: Path):
    with pytest.raises(DataError, match="it holds nothing: it does not exist; give the dataset's"):
        find_root(tmp_path / "absent", "lerobot")


def test_thousands_of_files_are_looked_through_quickly(tmp_path: Path):
    touch(tmp_path, *(f"{i % 300:03d}/{i}.bin" for i in range(1500)))

    with pytest.raises(DataError, match="it holds 000/, 001/"):
        find_root(tmp_path, "lerobot")


def test_videos_and_captions_in_folders_below_are_the_videos_layout(tmp_path: Path):
    touch(tmp_path, "videos/in/deep/a.MOV", "metas/in/deep/a.txt")
    (tmp_path / "videos/loop.mp4").symlink_to("loop.mp4")

    look = recognise_layout(tmp_path)

    assert look is not None
    assert look.layout == "videos"
