from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from cosmos_worker.errors import DataError
from cosmos_worker.storage import volumes
from cosmos_worker.text.embeddings import EmbeddingStore


def embedding(seed: int, length: int = 3, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, dim)).astype(np.float16)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_store_returns_what_was_added(tmp_path: Path) -> None:
    texts = {
        "push the cube": embedding(0),
        "": embedding(1, length=1),
        "schiebe ü\n\U0001f916": embedding(2),
    }
    EmbeddingStore(tmp_path, "enc-8").add(texts)

    store = EmbeddingStore(tmp_path)

    assert len(store) == 3
    assert store.encoder == "enc-8"
    assert store.dim == 4
    assert store.length("") == 1
    for caption, array in texts.items():
        assert caption in store
        np.testing.assert_array_equal(store.get(caption), array)
        assert store.get(caption).dtype == np.float16


def test_missing_names_each_absent_caption_once_in_order(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "not yet there")
    store.add({"b": embedding(0)})

    assert store.missing(["c", "a", "b", "c", ""]) == ["c", "a", ""]


def test_get_names_an_absent_caption(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no embedding of the caption 'push'; run embed-text"):
        EmbeddingStore(tmp_path).get("push")


def test_add_to_another_encoders_store_is_refused(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path, "one-512").add({"a": embedding(0)})

    with pytest.raises(DataError, match=r"made by encoder one-512, expected two-512; use a folder"):
        EmbeddingStore(tmp_path, "two-512")


def test_add_refuses_an_encoder_that_came_second(tmp_path: Path) -> None:
    late = EmbeddingStore(tmp_path, "two-512")
    EmbeddingStore(tmp_path, "one-512").add({"a": embedding(0)})

    with pytest.raises(DataError, match="made by encoder one-512"):
        late.add({"b": embedding(1)})
    assert len(shards(tmp_path)) == 1


def test_interrupted_add_leaves_earlier_shards_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EmbeddingStore(tmp_path).add({"a": embedding(0)})

    def die(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(volumes.Path, "replace", lambda *_: die(tmp_path))
        with pytest.raises(OSError, match="No space left"):
            EmbeddingStore(tmp_path).add({"b": embedding(1)})
    (tmp_path / ".embeddings-0123.safetensors.abc.tmp").write_bytes(b"half")  # as a kill leaves it

    store = EmbeddingStore(tmp_path)

    assert store.missing(["a", "b"]) == ["b"]
    np.testing.assert_array_equal(store.get("a"), embedding(0))


def test_adding_the_same_twice_makes_one_shard(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).add({"a": embedding(0)})
    EmbeddingStore(tmp_path).add({"a": embedding(0)})
    EmbeddingStore(tmp_path).add({})

    assert len(shards(tmp_path)) == 1


def _add_many(folder: Path, first: int) -> None:
    store = EmbeddingStore(folder, "enc-8")
    for i in range(first, first + 10):
        store.add({f"caption {i}": embedding(i)})


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_add_many, args=(tmp_path, first)) for first in (0, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    store = EmbeddingStore(tmp_path, "enc-8")

    assert [process.exitcode for process in processes] == [0, 0]
    assert len(store) == 15
    for i in range(15):
        np.testing.assert_array_equal(store.get(f"caption {i}"), embedding(i))


def test_refresh_takes_in_what_others_added(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path)
    EmbeddingStore(tmp_path).add({"a": embedding(0)})

    assert store.missing(["a"]) == ["a"]
    store.refresh()
    assert store.missing(["a"]) == []


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_truncated_shard_is_named_with_a_remedy(tmp_path: Path, keep: float) -> None:
    EmbeddingStore(tmp_path).add({"a": embedding(0)})
    (shard,) = shards(tmp_path)
    content = shard.read_bytes()
    shard.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])

    with pytest.raises(DataError, match=rf"{shard.name}: damaged shard .*delete the file and run"):
        EmbeddingStore(tmp_path)


def test_flipped_bit_is_found_when_read(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path).add({"a": embedding(0)})
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 0x40
    shard.write_bytes(content)

    with pytest.raises(DataError, match=rf"{shard.name}: the embedding of 'a' fails its checksum"):
        EmbeddingStore(tmp_path).get("a")


def test_foreign_safetensors_file_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": embedding(0)}, tmp_path / "embeddings-foreign.safetensors")

    with pytest.raises(DataError, match=r"embeddings-foreign\.safetensors: damaged shard"):
        EmbeddingStore(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), np.float32), r"got float32 \(2, 4\), expected float16"),
        (np.zeros((4,), np.float16), r"got float16 \(4,\)"),
        (np.zeros((0, 4), np.float16), r"got float16 \(0, 4\)"),
        (np.full((2, 4), np.inf, np.float16), "not finite"),
        (np.zeros((2, 6), np.float16), "width 6, the store .* has width 4"),
    ],
)
def test_add_refuses_a_wrong_embedding(tmp_path: Path, array: np.ndarray, message: str) -> None:
    store = EmbeddingStore(tmp_path)
    store.add({"good": embedding(0)})

    with pytest.raises(DataError, match=message):
        store.add({"bad": array})
    assert EmbeddingStore(tmp_path).missing(["good", "bad"]) == ["bad"]


def test_store_keeps_the_order_of_columns(tmp_path: Path) -> None:
    fortran = np.asfortranarray(embedding(0))

    EmbeddingStore(tmp_path).add({"a": fortran})

    np.testing.assert_array_equal(EmbeddingStore(tmp_path).get("a"), fortran)
