import errno
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.tokenizer import latents as module
from cosmos_worker.tokenizer.latents import (
    LatentStore,
    LatentWriter,
    write_latents,
)


def make_latents(count, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(0)
    return {
        f"train/{number}@{8 * number}": torch.randn(4, 3, 2, 2, generator=generator).to(dtype)
        for number in range(count)
    }


def write(folder, latents, fingerprint="f", windows_per_shard=2):
    with LatentWriter(folder, fingerprint, windows_per_shard) as writer:
        for window_id, latent in latents.items():
            writer.add(window_id, latent)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_store_gives_back_what_was_written(tmp_path, dtype):
    latents = make_latents(5, dtype)

    store = write_latents(tmp_path, latents.items(), "f")

    assert sorted(store.window_ids) == sorted(latents)
    assert len(store) == 5
    for window_id, latent in latents.items():
        assert window_id in store
        assert store.get(window_id).dtype == dtype
        assert torch.equal(store.get(window_id), latent)


def test_changing_a_latent_in_place_does_not_change_the_store(tmp_path):
    store = write_latents(tmp_path, make_latents(1).items(), "f")
    window_id = store.window_ids[0]
    before = store.get(window_id)

    store.get(window_id).zero_()

    assert torch.equal(store.get(window_id), before)


def test_store_can_be_given_to_another_process(tmp_path):
    store = write_latents(tmp_path, make_latents(3).items(), "f")

    copy = pickle.loads(pickle.dumps(store))

    assert torch.equal(copy.get(store.window_ids[1]), store.get(store.window_ids[1]))


def test_unknown_window_is_named(tmp_path):
    store = write_latents(tmp_path, make_latents(2).items(), "f")

    with pytest.raises(DataError, match="no latent of window val/x@0 among 2; run cache-latents"):
        store.get("val/x@0")


def test_empty_folder_asks_for_cache_latents(tmp_path):
    with pytest.raises(DataError, match="run cache-latents first"):
        LatentStore(tmp_path)


def test_interrupted_writer_keeps_complete_shards(tmp_path):
    latents = make_latents(5)

    with pytest.raises(KeyboardInterrupt), LatentWriter(tmp_path, "f", 2) as writer:  # noqa: PT012
        for number, (window_id, latent) in enumerate(latents.items()):
            if number == 3:
                raise KeyboardInterrupt
            writer.add(window_id, latent)

    assert LatentWriter(tmp_path, "f", 2).done == frozenset(list(latents)[:2])


def test_resumed_writer_ends_in_the_same_files(tmp_path):
    latents = make_latents(5)
    write(tmp_path / "whole", latents)
    write(tmp_path / "parts", dict(list(latents.items())[:2]))
    write(tmp_path / "parts", dict(list(latents.items())[2:]))

    whole, parts = sorted((tmp_path / "whole").iterdir()), sorted((tmp_path / "parts").iterdir())

    assert [path.name for path in whole] == [path.name for path in parts]
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in parts]
    assert LatentStore(tmp_path / "whole").digest == LatentStore(tmp_path / "parts").digest


def test_digest_follows_the_values(tmp_path):
    latents = make_latents(3)
    write(tmp_path / "a", latents)
    latents["train/1@8"] = latents["train/1@8"] + 1
    write(tmp_path / "b", latents)

    assert LatentStore(tmp_path / "a").digest != LatentStore(tmp_path / "b").digest


def test_rests_of_a_killed_writer_are_removed(tmp_path):
    rest = tmp_path / ".latents-00000.safetensors.abc.tmp"
    rest.write_bytes(b"half a shard")

    LatentWriter(tmp_path, "f")

    assert not rest.exists()


def test_writers_of_several_processes_fill_one_folder(tmp_path):
    latents = make_latents(6)
    write(tmp_path / "one", latents)
    items = list(latents.items())

    for rank, own in ((1, items[2:4]), (0, items[:2] + items[4:])):
        with LatentWriter(tmp_path / "two", "f", 2, rank, 2) as writer:
            for window_id, latent in own:
                writer.add(window_id, latent)

    one, two = sorted((tmp_path / "one").iterdir()), sorted((tmp_path / "two").iterdir())
    assert [path.name for path in one] == [path.name for path in two]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_writer_leaves_what_another_process_is_writing(tmp_path):
    names = [f".latents-0000{number}.safetensors.abc.tmp" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(b"half a shard")

    LatentWriter(tmp_path, "f", 2, 1, 2)

    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], names[2]]


def test_writer_refuses_a_folder_of_other_latents(tmp_path):
    write(tmp_path, make_latents(2), "one")

    with pytest.raises(DataError, match="holds latents of another dataset, tokenizer or video"):
        LatentWriter(tmp_path, "two")


def test_writer_refuses_the_same_window_twice(tmp_path):
    latents = make_latents(2)
    write(tmp_path, latents)

    with pytest.raises(DataError, match="window train/0@0 was added twice"):
        write(tmp_path, latents)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_writer_names_the_window_with_a_bad_latent(tmp_path, value):
    latents = make_latents(2)
    latents["train/1@8"][0, 0, 0, 0] = value

    with pytest.raises(DataError, match="window train/1@8: its latent has NaN or infinite values"):
        write(tmp_path, latents)


def test_reading_names_the_window_with_a_bad_latent(tmp_path):
    bad = torch.full((4, 1, 2, 2), float("nan"))
    path = tmp_path / "latents-00000.safetensors"
    header = {"fingerprint": "f", "sha256": "0"}
    save_file({"train/0@0": bad}, path, {"latents": json.dumps(header)})

    with pytest.raises(DataError, match=r"00000\.safetensors: window train/0@0: NaN .* delete"):
        LatentStore(tmp_path).get("train/0@0")


@pytest.mark.parametrize("keep", [0, 4, 50, 400])
def test_truncated_shard_is_named_with_its_remedy(tmp_path, keep):
    write(tmp_path, make_latents(4))
    path = tmp_path / "latents-00001.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    for opened in (LatentStore, lambda folder: LatentWriter(folder, "f")):
        with pytest.raises(
            DataError,
            match=r"00001\.safetensors: damaged or truncated .*delete the file and run cache-latents",
        ):
            opened(tmp_path)


def test_deleting_a_damaged_shard_lets_the_writer_fill_the_gap(tmp_path):
    latents = make_latents(6)
    write(tmp_path, latents)
    digest = LatentStore(tmp_path).digest
    (tmp_path / "latents-00001.safetensors").unlink()

    writer = LatentWriter(tmp_path, "f", 2)
    with writer:
        for window_id, latent in latents.items():
            if window_id not in writer.done:
                writer.add(window_id, latent)

    store = LatentStore(tmp_path)
    assert all(torch.equal(store.get(window_id), latent) for window_id, latent in latents.items())
    assert store.digest == digest


def test_foreign_shard_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "latents-00000.safetensors")

    with pytest.raises(DataError, match="not written by cache-latents"):
        LatentStore(tmp_path)


def test_shards_of_different_sources_are_refused(tmp_path):
    write(tmp_path / "one", make_latents(2), "one")
    write(tmp_path / "two", make_latents(2), "two")
    (tmp_path / "one" / "latents-00000.safetensors").rename(
        tmp_path / "two" / "latents-00001.safetensors"
    )

    with pytest.raises(DataError, match=r"00001\.safetensors: made from another dataset"):
        LatentStore(tmp_path / "two")


def test_full_disk_is_retryable_and_keeps_earlier_shards(tmp_path, monkeypatch):
    write(tmp_path, make_latents(2))

    def no_space(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(module, "atomic_write", no_space)

    with pytest.raises(RetryableError, match=r"disk full while writing .* 2 windows are kept"):
        write(tmp_path, dict(list(make_latents(4).items())[2:]))
    assert len(LatentStore(tmp_path)) == 2
