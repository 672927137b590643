"""Latents of several sizes in one cache."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.buckets import (
    TALL,
    WIDE,
    bucket_experiment,
    cache_config,
    prepare_config,
    write_mixed_dataset,
)
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import small_experiment

from cosmos_worker.config.network import VideoConfig
from cosmos_worker.data.index import Window, read_index
from cosmos_worker.data.video.files import read_window
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import cache_latents, prepare_dataset
from cosmos_worker.stages.cache_latents import own_windows
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import video_from_pixels

EXPERIMENT = bucket_experiment()
SIZES: dict[str, VideoConfig] = {WIDE.size_name: WIDE, TALL.size_name: TALL}
SHAPES = {WIDE.size_name: (16, 3, 4, 6), TALL.size_name: (16, 2, 6, 4)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """root/{index,tokenizer} and root/latents of one process, in shards of 2 windows."""
    root = tmp_path_factory.mktemp("inputs")
    source = write_mixed_dataset(root / "source")
    write_tiny_tokenizer(root / "tokenizer")
    prepare_dataset.run(prepare_config(root, source, EXPERIMENT), Volumes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_latents, "WINDOWS_PER_SHARD", 2)
        run(root, root / "latents")
    return root


def run(root: Path, target: Path) -> dict[str, object]:
    config = cache_config(root, EXPERIMENT, target)
    tokenizer = config.tokenizer.model_copy(update={"batch_size": 2})
    return cache_latents.run(config.model_copy(update={"tokenizer": tokenizer}), Volumes())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_latents_are_those_of_the_windows_in_the_size_of_their_bucket(inputs: Path) -> None:
    store, index = LatentStore(inputs / "latents"), read_index(inputs / "index")
    tokenizer = load_tokenizer(inputs / "tokenizer", EXPERIMENT.tokenizer, "cpu", "torchscript")

    windows = [window for split in ("train", "val") for window in index.windows(split)]
    assert sorted(store.window_ids) == sorted(window.window_id for window in windows)
    for window in windows:
        assert window.bucket is not None
        size = SIZES[window.bucket]
        path = index.video_path(index.clip(window.clip_id))
        pixels = read_window(path, window.start, size.num_pixel_frames, size.height, size.width)
        expected = tokenizer.encode(video_from_pixels(torch.from_numpy(pixels)[None]))[0]
        assert store.get(window.window_id).shape == SHAPES[window.bucket]
        torch.testing.assert_close(store.get(window.window_id), expected)


def test_a_shard_holds_latents_of_one_size(inputs: Path) -> None:
    from safetensors import safe_open

    sizes = []
    for path in sorted((inputs / "latents").glob("*.safetensors")):
        with safe_open(path, framework="pt") as shard:
            found = {tuple(shard.get_tensor(key).shape) for key in shard.keys()}  # noqa: SIM118
        assert len(found) == 1
        sizes.append(found.pop())
    assert sizes == [(16, 3, 4, 6)] * 4 + [(16, 2, 6, 4)] * 5


@pytest.mark.parametrize("ranks", [(1, 0), (2, 1, 0)])
def test_processes_write_the_files_of_a_single_one(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: tuple[int, ...]
) -> None:
    monkeypatch.setattr(cache_latents, "WINDOWS_PER_SHARD", 2)
    for rank in ranks:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(len(ranks)))
        run(inputs, tmp_path)

    assert contents(tmp_path) == contents(inputs / "latents")


@pytest.mark.parametrize("lost", [0, 3, 4, 6, 8])
def test_a_shard_that_was_lost_comes_back(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(cache_latents, "WINDOWS_PER_SHARD", 2)
    shutil.copytree(inputs / "latents", tmp_path / "latents")
    (tmp_path / "latents" / f"latents-{lost:05d}.safetensors").unlink()

    result = run(inputs, tmp_path / "latents")

    assert result["encoded"] == (1 if lost == 3 else 2)
    assert contents(tmp_path / "latents") == contents(inputs / "latents")


def test_result_and_log_have_the_size_of_every_bucket(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = run(inputs, tmp_path)

    assert result["shapes"] == {name: list(shape) for name, shape in SHAPES.items()}
    assert "shape" not in result
    assert result["bytes"] == 4 * (7 * 16 * 3 * 4 * 6 + 10 * 16 * 2 * 6 * 4)
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        "bucket=17x32x48 windows=7 reused=0 to_encode=7 kib_per_window=4.5" in line
        for line in lines
    )
    assert any(
        "bucket=9x48x32 windows=10 reused=0 to_encode=10 kib_per_window=3.0" in line
        for line in lines
    )


def test_disk_must_have_room_for_all_buckets(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 7 * 4608 + 9 * 3072
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, free))

    with pytest.raises(RetryableError, match=r"17 latents of 4608 or 3072 bytes need 0\.1 MiB"):
        run(inputs, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values | {"buckets": (TALL, WIDE)},
        lambda values: values | {"buckets": (WIDE, TALL.model_copy(update={"height": 64}))},
    ],
)
def test_latents_of_other_buckets_are_not_mixed_in(
    inputs: Path, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    config = cache_config(inputs, EXPERIMENT)
    changed = type(config).model_validate(change(dict(config)))

    with pytest.raises(DataError, match=r"holds latents of another|is of bucket"):
        cache_latents.run(changed, Volumes())


def test_dataset_of_buckets_is_refused_without_them(inputs: Path, tmp_path: Path) -> None:
    config = cache_config(inputs, small_experiment(), tmp_path)

    with pytest.raises(DataError, match=r"is of bucket .*, the experiment's buckets are: none"):
        cache_latents.run(config, Volumes())


@given(
    num_windows=st.integers(0, 40),
    per_shard=st.integers(1, 7),
    world_size=st.integers(1, 5),
    first_shard=st.integers(0, 9),
)
def test_shares_count_the_shards_of_the_buckets_before(
    num_windows: int, per_shard: int, world_size: int, first_shard: int
) -> None:
    windows = [Window("train/a", start) for start in range(num_windows)]
    shares = [
        own_windows(windows, per_shard, ProcessGroup(rank, world_size), first_shard)
        for rank in range(world_size)
    ]

    assert sorted(w.start for part in shares for w in part) == list(range(num_windows))
    for rank, part in enumerate(shares):
        assert all((first_shard + w.start // per_shard) % world_size == rank for w in part)
