"""The bucket of each clip, and buckets in the report of prepare-dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.buckets import TALL, WIDE, bucket_experiment, prepare_config, write_mixed_dataset
from support.training import small_experiment

from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.buckets import choose_bucket, group_windows, stretch
from cosmos_worker.data.index import Window, read_index
from cosmos_worker.errors import DataError
from cosmos_worker.stages import prepare_dataset
from cosmos_worker.storage.volumes import Volumes


def bucket(frames: int, height: int, width: int) -> VideoConfig:
    return VideoConfig(num_pixel_frames=frames, height=height, width=width)


BUCKETS = (
    bucket(57, 256, 320),
    bucket(57, 320, 256),
    bucket(121, 256, 320),
    bucket(57, 512, 640),
    bucket(17, 256, 256),
)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ((60, 240, 320), "57x256x320"),
        ((60, 320, 240), "57x320x256"),
        ((130, 240, 320), "121x256x320"),
        ((130, 320, 240), "57x320x256"),
        ((60, 720, 960), "57x512x640"),
        ((30, 240, 320), "17x256x256"),
        ((57, 256, 256), "17x256x256"),
        ((17, 1, 999), "17x256x256"),
        ((16, 256, 256), None),
    ],
)
def test_clip_goes_to_the_bucket_that_fits_it_best(
    clip: tuple[int, int, int], expected: str | None
) -> None:
    chosen = choose_bucket(*clip, BUCKETS)

    assert (chosen and chosen.size_name) == expected


def test_first_of_equal_buckets_is_chosen() -> None:
    # a square clip is as far from wide as from tall
    assert choose_bucket(20, 64, 64, (bucket(17, 32, 64), bucket(17, 64, 32))).width == 64
    assert choose_bucket(20, 64, 64, (bucket(17, 64, 32), bucket(17, 32, 64))).width == 32


sizes = st.integers(1, 12).map(lambda n: 16 * n)
videos = st.builds(bucket, st.integers(0, 8).map(lambda n: 8 * n + 1), sizes, sizes)


@given(
    frames=st.integers(1, 80),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    buckets=st.lists(videos, min_size=1, max_size=5),
)
def test_chosen_bucket_is_filled_and_none_of_those_stretches_less(
    frames: int, height: int, width: int, buckets: list[VideoConfig]
) -> None:
    chosen = choose_bucket(frames, height, width, buckets)

    filled = [one for one in buckets if one.num_pixel_frames <= frames]
    if not filled:
        assert chosen is None
        return
    assert chosen in filled
    least = stretch(height, width, chosen)
    assert all(least <= stretch(height, width, one) for one in filled)
    equal = [one for one in filled if stretch(height, width, one) == least]
    assert chosen.num_pixel_frames == max(one.num_pixel_frames for one in equal)


def test_windows_are_grouped_in_the_order_of_the_buckets() -> None:
    windows = [Window("b", 0, "9x48x32"), Window("a", 0, "17x32x48"), Window("b", 1, "9x48x32")]
    groups = group_windows(windows, {"17x32x48": WIDE, "9x48x32": TALL}, "index")

    assert groups == {"17x32x48": [windows[1]], "9x48x32": [windows[0], windows[2]]}
    assert list(groups) == ["17x32x48", "9x48x32"]
    with pytest.raises(
        DataError, match=r"index: window b@0 is of bucket 9x48x32, .* 17x32x48; run"
    ):
        group_windows(windows, {"17x32x48": WIDE}, "index")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_mixed_dataset(tmp_path / "source")


def test_index_says_the_bucket_of_every_clip(source: Path, tmp_path: Path) -> None:
    result = prepare_dataset.run(prepare_config(tmp_path, source, bucket_experiment()), Volumes())

    index = read_index(tmp_path / "index")
    assert {clip.clip_id: (clip.bucket, clip.window_starts) for clip in index.clips} == {
        "train/brief": ("9x48x32", (0, 1, 2, 3)),
        "train/tall0": ("9x48x32", (0, 1)),
        "train/tall1": ("9x48x32", (0, 1)),
        "train/wide0": ("17x32x48", (0, 1)),
        "train/wide1": ("17x32x48", (0, 1)),
        "train/wide2": ("17x32x48", (0, 1)),
        "val/tall0": ("9x48x32", (0,)),
        "val/tall1": ("9x48x32", (0,)),
        "val/wide": ("17x32x48", (0,)),
    }
    assert {window.bucket for window in index.windows("train")} == {"17x32x48", "9x48x32"}
    assert result["buckets"]["9x48x32"] == {
        "clips": 5,
        "windows": {"train": 8, "val": 2, "test": 0},
        "largest_stretch": 2.25,
    }
    report = (tmp_path / "index" / "report.md").read_text()
    assert (
        "| bucket | every .. frames | clips | train windows | val windows | test windows |"
        in report
    )
    assert "| 17x32x48 | 1 | 4 | 6 | 1 | 0 | 1.062 |" in report


def test_clip_that_fills_no_bucket_is_dropped_with_the_reason(tmp_path: Path) -> None:
    clips = {f"train/wide{i}": (20, 32, 48) for i in range(3)}
    clips |= {f"train/tall{i}": (12, 48, 32) for i in range(3)} | {"train/short": (8, 32, 48)}
    source = write_mixed_dataset(tmp_path / "source", clips)

    result = prepare_dataset.run(prepare_config(tmp_path, source, bucket_experiment()), Volumes())

    assert result["dropped"] == {"too_short": 1}
    report = (tmp_path / "index" / "report.md").read_text()
    assert "7 clips, 6 kept, 0 unusable, 1 shorter than every bucket." in report
    assert "| dropped: fill no bucket | | 1 |" in report
    assert "rgb.mp4 | too_short | 8 frames, the shortest bucket takes 9 |" in report


def test_bucket_with_fewer_windows_than_a_batch_is_named(source: Path, tmp_path: Path) -> None:
    experiment = bucket_experiment(global_batch_size=8)

    message = r"bucket 17x32x48 has 6 training windows, a batch takes 8 of one bucket .* remove"
    with pytest.raises(DataError, match=message):
        prepare_dataset.run(prepare_config(tmp_path, source, experiment), Volumes())
    assert "| 17x32x48 | 1 | 4 | 6 |" in (tmp_path / "index" / "report-failed.md").read_text()


def test_dataset_without_buckets_has_no_word_of_them(source: Path, tmp_path: Path) -> None:
    config = prepare_config(tmp_path, source, small_experiment())

    result = prepare_dataset.run(config, Volumes())

    assert "buckets" not in result
    assert "buckets" not in json.loads((tmp_path / "index" / "summary.json").read_text())
    lines = (tmp_path / "index" / "index.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == {
        "captions", "clip_id", "fps", "height", "num_frames", "split", "video", "video_sha256",
        "width", "window_starts",
    }  # fmt: skip
