import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.clips import write_clip
from support.tiny_tokenizer import write_script, write_tiny_tokenizer

from cosmos_worker.config.network import TokenizerConfig, VideoConfig
from cosmos_worker.config.stages import CacheLatentsConfig, Fit
from cosmos_worker.data.index import Clip, Window, read_index, write_index
from cosmos_worker.data.video.files import read_window
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import cache_latents
from cosmos_worker.stages.cache_latents import own_windows
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    Volumes,
    read_marker,
    sha256_of_file,
    write_json,
)
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import video_from_pixels

VIDEO = VideoConfig(num_pixel_frames=9, height=16, width=32)
TOKENIZER = TokenizerConfig(chunk_pixel_frames=9, dtype="bfloat16", batch_size=2)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def write_dataset(root, windows, num_frames=17):
    """A dataset with one clip per entry: clip id to its window starts."""
    clips = []
    for number, (clip_id, starts) in enumerate(windows.items()):
        video = f"{clip_id.replace('/', '-')}.mp4"
        path = write_clip(root / video, num_frames, shade=40 * number)
        split = clip_id.split("/")[0]
        digest = sha256_of_file(path)
        clips.append(Clip(clip_id, split, video, "push", num_frames, 10.0, 32, 48, starts, digest))
    digest = write_index(root, clips)
    write_json(
        root / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )
    return root


def make_config(dataset, tokenizer_uri, target, **changes):
    values = {
        "key": "k",
        "target_uri": str(target),
        "dataset_uri": str(dataset),
        "tokenizer_uri": str(tokenizer_uri),
        "video": VIDEO,
        "tokenizer": TOKENIZER,
        "tokenizer_runtime": "torchscript",
    }
    return CacheLatentsConfig(**{**values, **changes})


def test_every_window_of_train_and_val_is_stored_once(tmp_path, tokenizer_folder):
    windows = {"train/a": (0, 3, 8), "train/b": (8,), "val/c": (0,), "test/d": (0,)}
    dataset = write_dataset(tmp_path / "data", windows)

    result = cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())

    store = LatentStore(tmp_path / "out")
    expected = ["train/a@0", "train/a@3", "train/a@8", "train/b@8", "val/c@0"]
    assert sorted(store.window_ids) == expected
    assert (result["windows"], result["encoded"], result["reused"]) == (5, 5, 0)
    assert (result["shape"], result["dtype"], result["bytes"]) == (
        [16, 2, 2, 4], "bfloat16", 5 * 16 * 2 * 2 * 4 * 2,
    )  # fmt: skip
    assert result["digest"] == store.digest


def test_latents_are_those_of_the_windows_decoded_one_by_one(tmp_path, tokenizer_folder):
    windows = {"train/a": (0, 3, 8), "train/b": (1, 2)}
    dataset = write_dataset(tmp_path / "data", windows)
    config = make_config(
        dataset, tokenizer_folder, tmp_path / "out",
        tokenizer=TokenizerConfig(chunk_pixel_frames=9, dtype="float32", batch_size=3),
    )  # fmt: skip

    cache_latents.run(config, Volumes())

    store, index = LatentStore(tmp_path / "out"), read_index(dataset)
    tokenizer = load_tokenizer(tokenizer_folder, TOKENIZER, "cpu", "torchscript")
    for window in index.windows("train"):
        path = index.video_path(index.clip(window.clip_id))
        pixels = torch.from_numpy(read_window(path, window.start, 9, 16, 32))
        expected = tokenizer.encode(video_from_pixels(pixels[None]))[0]
        torch.testing.assert_close(store.get(window.window_id), expected)


def test_latents_are_those_of_cropped_or_padded_windows(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0,)})
    fits: tuple[Fit, ...] = ("stretch", "crop", "pad")
    tall = VIDEO.model_copy(update={"height": 32, "width": 16})
    index = read_index(dataset)
    path = index.video_path(index.clips[0])
    found = []
    for fit in fits:
        config = make_config(
            dataset, tokenizer_folder, tmp_path / fit,
            fit=fit, video=tall, tokenizer=TOKENIZER.model_copy(update={"dtype": "float32"}),
        )  # fmt: skip
        cache_latents.run(config, Volumes())
        found.append(LatentStore(tmp_path / fit).get("train/a@0"))

        pixels = torch.from_numpy(read_window(path, 0, 9, 32, 16, fit))
        tokenizer = load_tokenizer(tokenizer_folder, TOKENIZER, "cpu", "torchscript")
        torch.testing.assert_close(found[-1], tokenizer.encode(video_from_pixels(pixels[None]))[0])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_a_folder_with_latents_of_another_fit_is_refused(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0,)})
    config = make_config(dataset, tokenizer_folder, tmp_path / "out")
    cache_latents.run(config, Volumes())

    with pytest.raises(DataError):
        cache_latents.run(config.model_copy(update={"fit": "crop"}), Volumes())


def test_embedded_tokenizer_needs_no_files(tmp_path):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0,)})

    result = cache_latents.run(make_config(dataset, "embedded", tmp_path / "out"), Volumes())

    assert result["shape"] == [1536, 2, 2, 4]
    assert LatentStore(tmp_path / "out").get("train/a@0").shape == (1536, 2, 2, 4)


def test_windows_longer_than_a_chunk_are_several_chunks(tmp_path):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0,)}, num_frames=81)
    config = make_config(
        dataset,
        "embedded",
        tmp_path / "out",
        video=VIDEO.model_copy(update={"num_pixel_frames": 81}),
    )

    result = cache_latents.run(config, Volumes())

    assert result["shape"] == [1536, 18, 2, 4]
    assert list(LatentStore(tmp_path / "out").get("train/a@0").shape) == result["shape"]


def test_a_second_run_reuses_everything(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0, 8)})
    config = make_config(dataset, tokenizer_folder, tmp_path / "out")
    first = cache_latents.run(config, Volumes())

    second = cache_latents.run(config, Volumes())

    assert (second["encoded"], second["reused"]) == (0, 2)
    assert second["digest"] == first["digest"]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_files(
    tmp_path, tokenizer_folder, monkeypatch
):
    monkeypatch.setattr(cache_latents, "WINDOWS_PER_SHARD", 2)
    windows = {f"train/{letter}": (0, 5, 8) for letter in "abc"}
    dataset = write_dataset(tmp_path / "data", windows)
    cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "whole"), Volumes())
    config = make_config(dataset, tokenizer_folder, tmp_path / "parts")
    broken = dataset / "train-c.mp4"
    content = broken.read_bytes()
    broken.write_bytes(content[:200])

    with pytest.raises(DataError, match=r"train-c\.mp4"):
        cache_latents.run(config, Volumes())
    kept = {path.name: path.stat().st_ino for path in (tmp_path / "parts").iterdir()}
    broken.write_bytes(content)
    result = cache_latents.run(config, Volumes())

    assert result["reused"] == 2 * len(kept) > 0
    assert result["encoded"] == 9 - result["reused"]
    for path in (tmp_path / "whole").iterdir():
        other = tmp_path / "parts" / path.name
        assert other.read_bytes() == path.read_bytes()
        assert kept.get(path.name, other.stat().st_ino) == other.stat().st_ino


def test_latents_of_another_tokenizer_are_not_mixed_in(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0,)})
    cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())
    before = LatentStore(tmp_path / "out").digest

    with pytest.raises(DataError, match="holds latents of another dataset, tokenizer or video"):
        cache_latents.run(make_config(dataset, "embedded", tmp_path / "out"), Volumes())
    assert LatentStore(tmp_path / "out").digest == before


def test_a_nan_latent_names_its_window(tmp_path, tokenizer_folder):
    class Nan(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            latent = video[:, :1, ::8, ::8, ::8].repeat(1, 16, 1, 1, 1)
            latent[1:] = float("nan")
            return latent

    folder = shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    write_script(Nan(), folder / "encoder.jit")
    dataset = write_dataset(tmp_path / "data", {"train/a": (0, 8)})

    with pytest.raises(DataError, match=r"window train/a@8: its latent has NaN .*float32"):
        cache_latents.run(make_config(dataset, folder, tmp_path / "out"), Volumes())


def test_too_little_disk_is_said_before_anything_is_encoded(
    tmp_path, tokenizer_folder, monkeypatch
):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0, 8)})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))

    message = r"2 latents of 512 bytes need .* MiB are free; free space, enlarge .*window_stride"
    with pytest.raises(RetryableError, match=message):
        cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())


def test_a_dataset_without_training_windows_is_refused(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {"test/a": (0,)})

    with pytest.raises(DataError, match="no windows in the splits train and val"):
        cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())


def test_the_size_is_logged_before_and_progress_while_encoding(tmp_path, tokenizer_folder, caplog):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0, 8)})

    with caplog.at_level(logging.INFO):
        cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())

    lines = [record.getMessage() for record in caplog.records]
    size = next(i for i, line in enumerate(lines) if "to_encode=2 kib_per_window=0.5" in line)
    done = next(i for i, line in enumerate(lines) if "windows=2/2" in line and "eta_s=" in line)
    assert size < done


@pytest.mark.parametrize(
    ("window_bytes", "batch_size", "num_windows", "expected"),
    [
        (330_000, 8, 10**6, 256),
        (330_000, 7, 10**6, 252),
        (7_200_000, 8, 10**6, 32),
        (10**9, 8, 10**6, 8),
        (100, 300, 10**6, 300),
        (330_000, 8, 480, 8),
        (330_000, 8, 3200, 96),
    ],
)
def test_shards_are_whole_batches(window_bytes, batch_size, num_windows, expected):
    assert cache_latents.windows_per_shard(window_bytes, batch_size, num_windows) == expected


# --- several processes -----------------------------------------------------------------------


def be_rank(monkeypatch, rank, world_size):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@given(num_windows=st.integers(0, 60), per_shard=st.integers(1, 9), world_size=st.integers(1, 5))
def test_shares_are_whole_shards_and_cover_every_window_once(num_windows, per_shard, world_size):
    windows = [Window("train/a", start) for start in range(num_windows)]
    shares = [
        own_windows(windows, per_shard, ProcessGroup(rank, world_size))
        for rank in range(world_size)
    ]

    assert sorted(w.start for part in shares for w in part) == list(range(num_windows))
    for rank, part in enumerate(shares):
        assert all(w.start // per_shard % world_size == rank for w in part)
        assert part == sorted(part, key=lambda window: window.start)


def test_processes_write_the_files_of_a_single_one(tmp_path, tokenizer_folder, monkeypatch):
    dataset = write_dataset(tmp_path / "data", {f"train/{c}": (0, 5, 8) for c in "abc"})
    whole = cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "one"), Volumes())
    config = make_config(dataset, tokenizer_folder, tmp_path / "three")

    results = []
    for rank in (2, 1, 0):
        be_rank(monkeypatch, rank, 3)
        results.append(cache_latents.run(config, Volumes()))

    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert [result["encoded"] for result in results] == [2, 3, 4]
    assert [result["reused"] for result in results] == [0, 2, 5]
    assert [result.get("digest") for result in results] == [None, None, whole["digest"]]


def test_another_number_of_processes_goes_on(tmp_path, tokenizer_folder, monkeypatch):
    dataset = write_dataset(tmp_path / "data", {f"train/{c}": (0, 5, 8) for c in "abc"})
    cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "one"), Volumes())
    config = make_config(dataset, tokenizer_folder, tmp_path / "two")
    be_rank(monkeypatch, 1, 3)
    cache_latents.run(config, Volumes())

    for rank in (1, 0):
        be_rank(monkeypatch, rank, 2)
        result = cache_latents.run(config, Volumes())

    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert result["encoded"] == 4  # shards 0 and 2; the first run made 1 and 4, rank 1 made 3


def test_process_0_gives_up_on_processes_that_do_not_come(tmp_path, tokenizer_folder, monkeypatch):
    dataset = write_dataset(tmp_path / "data", {"train/a": (0, 5, 8)})
    monkeypatch.setattr(cache_latents, "PATIENCE_S", 0.2)
    monkeypatch.setattr(cache_latents, "POLL_S", 0.05)
    be_rank(monkeypatch, 0, 2)

    message = r"1 of 3 windows are missing, such as train/a@8, and the other processes have written"
    with pytest.raises(RetryableError, match=message):
        cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "out"), Volumes())


@pytest.mark.multiproc
def test_two_processes_leave_one_marker(tmp_path, tokenizer_folder):
    dataset = write_dataset(tmp_path / "data", {f"train/{c}": (0, 5, 8) for c in "abc"})
    cache_latents.run(make_config(dataset, tokenizer_folder, tmp_path / "one"), Volumes())
    document = tmp_path / "stage.yaml"
    config = make_config(dataset, tokenizer_folder, tmp_path / "two")
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    subprocess.run(
        [
            *(sys.executable, "-m", "cosmos_worker.cli", "cache-latents"),
            *("--config", str(document), "--nproc-per-node", "2"),
        ],
        env={**os.environ, "COSMOS_TERMINATION_LOG": str(tmp_path / "termination.json")},
        check=True,
    )

    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    marker = read_marker(tmp_path / "two", "k")
    message = json.loads((tmp_path / "termination.json").read_text())
    assert marker is not None
    assert marker["result"]["windows"] == 9
    assert message["reason"] == "Succeeded"
    assert message["result"] == marker["result"]


def test_latents_of_another_video_reader_are_not_used(tmp_path, monkeypatch):
    config = make_config(
        write_dataset(tmp_path / "data", {"train/a": (0,)}), "embedded", tmp_path / "out"
    )
    cache_latents.run(config, Volumes())
    monkeypatch.setattr(cache_latents, "VIDEO_READER_VERSION", VIDEO_READER_VERSION + 1)

    with pytest.raises(DataError, match="holds latents of another dataset"):
        cache_latents.run(config, Volumes())
