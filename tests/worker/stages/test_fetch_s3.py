"""prepare-dataset and fetch-model from a bucket, as their documents ask for it."""

from __future__ import annotations

import io
import json
import logging
import math
import tarfile
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from support.clips import write_bridge_dataset
from support.s3_store import BUCKET, PAGE, S3Store, error_answer

from cosmos_worker.config.source import S3Source, Source
from cosmos_worker.config.stages import FetchModelConfig, PrepareDatasetConfig
from cosmos_worker.data.index import read_index
from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.sources import s3, s3_download
from cosmos_worker.sources.folder import partial_folder
from cosmos_worker.stages import fetch_model, prepare_dataset
from cosmos_worker.storage.volumes import (
    Volumes,
    sha256_of_file,
)

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    for name in ("datasets", "models"):
        (tmp_path / name).mkdir()
    return Volumes({"datasets": tmp_path / "datasets", "models": tmp_path / "models"})


def prepare(volumes: Volumes, store: S3Store, uri: str) -> dict:
    config = {
        "key": "k",
        "target_uri": "datasets://job/index",
        "data_uri": "datasets://job/data",
        "source": {"s3": {"uri": uri, "endpoint": store.url}},
        "layout": "bridge",
        "video": {"num_pixel_frames": 9, "height": 32, "width": 48, "window_stride": 8},
    }
    return prepare_dataset.run(PrepareDatasetConfig.model_validate(config), volumes)


def fetch(volumes: Volumes, store: S3Store, uri: str, kind: str = "model") -> dict:
    source = {"s3": {"uri": uri, "endpoint": store.url}}
    artifact = {"kind": kind, "name": "Tiny", "source": source, "target_uri": "models://Tiny"}
    config = {"key": "k", "target_uri": "models://", "artifacts": [artifact]}
    (result,) = fetch_model.run(FetchModelConfig.model_validate(config), volumes)["artifacts"]
    return result


def saved(state: dict[str, torch.Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pack(folder: Path, archive: Path, name: str) -> bytes:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=name)
    return archive.read_bytes()


# --- datasets ----------------------------------------------------------------------------------


def test_dataset_below_a_prefix(store: S3Store, tmp_path: Path, volumes: Volumes) -> None:
    made = write_bridge_dataset(tmp_path / "made", train=2, val=1)
    store.put_folder(made, "sets/bridge")
    store.put("sets/bridge/")
    store.put("sets/bridge-old/annotation/train/x.json", b"{}")

    result = prepare(volumes, store, f"s3://{BUCKET}/sets/bridge")

    assert result["clips"]["kept"] == 3
    data = tmp_path / "datasets/job/data"
    assert read_index(tmp_path / "datasets/job/index").root == data
    records = [
        json.loads(line) for line in (data / "fetched-objects.jsonl").read_text().splitlines()
    ]
    assert {entry["name"]: entry["sha256"] for entry in records} == {
        path.relative_to(made).as_posix(): sha256_of_file(path)
        for path in made.rglob("*")
        if path.is_file()
    }
    assert names_of(tmp_path / "datasets/job") == ["data", "index"]
    store.forget()
    assert prepare(volumes, store, f"s3://{BUCKET}/sets/bridge") == result
    assert store.asked == []


def test_dataset_in_an_archive_with_one_top_folder(
    store: S3Store, tmp_path: Path, volumes: Volumes
) -> None:
    made = write_bridge_dataset(tmp_path / "made", train=1, val=0)
    store.put("sets/bridge.tar.gz", pack(made, tmp_path / "a.tar.gz", "robotdata/bridge"))

    prepare(volumes, store, f"s3://{BUCKET}/sets/bridge.tar.gz")

    data = tmp_path / "datasets/job/data"
    assert read_index(tmp_path / "datasets/job/index").root == data / "robotdata/bridge"
    (record,) = map(json.loads, (data / "fetched-objects.jsonl").read_text().splitlines())
    assert record["sha256"] == sha256_of_file(tmp_path / "a.tar.gz")
    assert names_of(tmp_path / "datasets/job") == ["data", "index"]


def test_dataset_goes_on_after_a_refusal_and_is_never_half_there(
    store: S3Store, tmp_path: Path, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_download, "NUM_CONNECTIONS", 1)
    store.put_folder(write_bridge_dataset(tmp_path / "made", train=2, val=0), "bridge")
    denied = error_answer(403, "AccessDenied")
    store.refuse = lambda method, path: denied if path.endswith("train1/rgb.mp4") else None

    with pytest.raises(DataError, match="AccessDenied"):
        prepare(volumes, store, f"s3://{BUCKET}/bridge")
    assert not (tmp_path / "datasets/job/data").exists()
    store.refuse = lambda method, path: None
    store.forget()
    result = prepare(volumes, store, f"s3://{BUCKET}/bridge")

    assert result["clips"]["kept"] == 2
    assert store.objects_asked() == ["bridge/videos/train/train1/rgb.mp4"]


def test_what_a_killed_extraction_left_is_removed_before_the_download(
    store: S3Store, tmp_path: Path, volumes: Volumes
) -> None:
    made = write_bridge_dataset(tmp_path / "made", train=1, val=0)
    store.put("bridge.tar.gz", pack(made, tmp_path / "a.tar.gz", "bridge"))
    uri = f"s3://{BUCKET}/bridge.tar.gz"
    source = Source(s3=S3Source(uri=uri, endpoint=store.url))
    left = partial_folder(source, tmp_path / "datasets/job/data") / "extracted.abcd"
    (left / "content").mkdir(parents=True)
    (left / "content/half.mp4").write_bytes(b"x")
    seen: list[bool] = []
    store.before_object = lambda key: seen.append(left.exists())

    prepare(volumes, store, uri)

    assert seen
    assert not any(seen)


def test_dataset_that_is_a_file_of_weights_is_refused(store: S3Store, volumes: Volumes) -> None:
    store.put("model.pt", b"weights")

    with pytest.raises(
        DataError, match=r"model\.pt: is a single file, which is no dataset; give the"
    ):
        prepare(volumes, store, f"s3://{BUCKET}/model.pt")


# --- models ------------------------------------------------------------------------------------


def test_model_below_a_prefix_takes_only_what_is_needed(
    store: S3Store, tmp_path: Path, volumes: Volumes
) -> None:
    index = {"weight_map": {"net.a": SHARDS[0], "net.b": SHARDS[1]}}
    store.put(f"models/tiny/{INDEX}", json.dumps(index).encode())
    for number, shard in enumerate(SHARDS):
        store.put(f"models/tiny/{shard}", save({f"net.{'ab'[number]}": torch.ones(number + 1)}))
    for name in ("config.json", "optimizer.bin", "vae/model.safetensors", "x/../y"):
        store.put(f"models/tiny/{name}", b"{}")

    result = fetch(volumes, store, f"s3://{BUCKET}/models/tiny")

    assert set(result["files"]) == {INDEX, "config.json", *SHARDS}
    assert result["files"][SHARDS[0]] == {
        "size_bytes": len(save({"net.a": torch.ones(1)})),
        "sha256": sha256_of_file(tmp_path / "models/Tiny" / SHARDS[0]),
    }
    assert sorted(store.objects_asked()) == sorted(
        f"models/tiny/{name}" for name in (INDEX, "config.json", *SHARDS)
    )
    assert names_of(tmp_path / "models") == ["Tiny"]
    store.forget()
    assert fetch(volumes, store, f"s3://{BUCKET}/models/tiny") == result
    assert store.asked == []


def test_model_whose_index_names_absent_shards(store: S3Store, volumes: Volumes) -> None:
    store.put(f"tiny/{INDEX}", json.dumps({"weight_map": dict.fromkeys("ab", SHARDS[0])}).encode())

    with pytest.raises(DataError, match=rf"Tiny: .* lacks {SHARDS[0]} for a model"):
        fetch(volumes, store, f"s3://{BUCKET}/tiny")


def test_model_that_is_one_object(store: S3Store, tmp_path: Path, volumes: Volumes) -> None:
    weights = saved({"net.a": torch.ones(3)})
    store.put("runs/iter_000000100_ema_model.pt", weights)

    result = fetch(volumes, store, f"s3://{BUCKET}/runs/iter_000000100_ema_model.pt")

    assert set(result["files"]) == {"model.pt"}
    assert (tmp_path / "models/Tiny/model.pt").read_bytes() == weights


def test_model_that_another_job_fetched_meanwhile_is_not_downloaded_again(
    store: S3Store, tmp_path: Path, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "LOCK_WAIT_S", 0.01)
    store.put("tiny/model.pt", saved({"net.a": torch.ones(3)}))
    uri, results = f"s3://{BUCKET}/tiny", []
    waits = threading.Event()
    jobs = [
        threading.Thread(target=lambda: results.append(fetch(volumes, store, uri)))
        for _ in range(2)
    ]

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waiting for it" in record.getMessage():
                waits.set()

    def let_the_other_come(key: str) -> None:
        store.before_object = lambda key: None
        jobs[1].start()
        assert waits.wait(20)

    store.before_object = let_the_other_come
    logger, handler = logging.getLogger(s3.__name__), Told()
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "level", logging.INFO)
    jobs[0].start()
    jobs[0].join()
    jobs[1].join()

    assert waits.is_set()
    assert store.objects_asked() == ["tiny/model.pt"]
    assert results[0] == results[1]
    assert names_of(tmp_path / "models") == ["Tiny"]


@pytest.mark.parametrize("name", ["iter_000000100_ema_model.pt", "model.pt", "model.safetensors"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("is_folder", [False, True])
def test_model_that_is_not_finite_is_refused_and_nothing_of_it_kept(
    store: S3Store, tmp_path: Path, volumes: Volumes, name: str, value: float, is_folder: bool
) -> None:
    uri = f"s3://{BUCKET}/runs{'' if is_folder else '/' + name}"
    good, bad = ({"net.a": torch.tensor([1.0, last])} for last in (2.0, value))
    write = save if name.endswith(".safetensors") else saved
    store.put(f"runs/{name}", write(bad))

    with pytest.raises(CheckpointError, match=r"net\.a"):
        fetch(volumes, store, uri)

    assert [name for name in names_of(tmp_path / "models") if not name.endswith(".lock")] == []
    store.put(f"runs/{name}", write(good))  # mended at the source
    assert fetch(volumes, store, uri)["files"]
    assert names_of(tmp_path / "models") == ["Tiny"]


def test_pointers_and_corrections_of_a_bucket_are_named(
    store: S3Store, volumes: Volumes, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("a/model.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    store.put("b/model.pt", saved({"net.a": torch.ones(3)}))
    store.put("b/step-100/.metadata", b"x")
    store.put("b/style_lora.safetensors", b"x")

    with pytest.raises(CheckpointError, match=r"model\.pt: a Git LFS pointer"):
        fetch(volumes, store, f"s3://{BUCKET}/a")
    fetch(volumes, store, f"s3://{BUCKET}/b")
    assert "s3://bucket/b holds style_lora.safetensors".replace("bucket", BUCKET) in caplog.text
    store.put("c/step-100/.metadata", b"x")
    with pytest.raises(DataError, match=r"torch\.distributed\.checkpoint in step-100: give that"):
        fetch(volumes, store, f"s3://{BUCKET}/c")


def test_tokenizer_in_an_archive(store: S3Store, tmp_path: Path, volumes: Volumes) -> None:
    names = ["encoder.jit", "decoder.jit", "mean_std.pt"]
    for name in (*names, "autoencoder.jit"):
        (tmp_path / "made").mkdir(exist_ok=True)
        (tmp_path / "made" / name).write_text(name)
    torch.save((torch.zeros(256), torch.ones(256)), tmp_path / "made/mean_std.pt")
    store.put("tokenizer.tgz", pack(tmp_path / "made", tmp_path / "a.tgz", "Cosmos-Tokenize1"))

    result = fetch(volumes, store, f"s3://{BUCKET}/tokenizer.tgz", "tokenizer")

    assert sorted(result["files"]) == sorted(names)
    assert names_of(tmp_path / "models") == ["Tiny"]


def test_what_a_prefix_lacks_is_told_with_what_it_has(store: S3Store, volumes: Volumes) -> None:
    store.put("tiny/encoder.jit", b"x")

    message = rf"Tiny: s3://{BUCKET}/tiny lacks decoder\.jit, mean_std\.pt for a tokenizer; it holds encoder\.jit; add"
    with pytest.raises(DataError, match=message):
        fetch(volumes, store, f"s3://{BUCKET}/tiny", "tokenizer")
    store.put("model.pt", b"x")
    message = r"Tiny: .*model\.pt is a single file; give the prefix of a folder"
    with pytest.raises(DataError, match=message):
        fetch(volumes, store, f"s3://{BUCKET}/model.pt", "tokenizer")


def test_web_page_in_place_of_weights_is_refused(store: S3Store, volumes: Volumes) -> None:
    store.put("tiny/model.pt", PAGE)

    message = rf"s3://{BUCKET}/tiny/model\.pt: got an HTML page titled 'Sign in & go on' instead of"
    with pytest.raises(DataError, match=message):
        fetch(volumes, store, f"s3://{BUCKET}/tiny")
