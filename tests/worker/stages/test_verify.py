"""Flipped bits and truncations of what stages leave for each other: found, with the file and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.fetched_weights import fetch
from support.training import write_model

from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import CheckpointError, DataError, UserError
from cosmos_worker.stages import verify
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import EmbeddingStore
from cosmos_worker.text.tokens import TextFacts
from cosmos_worker.tokenizer.latents import HEADER, LatentStore, shard_path, write_latents

EVERY = 97
"""Of a large file, one byte in so many is changed."""


def make_latents(folder: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    pairs = [(f"train/{n}@0", torch.randn(4, 3, 2, 2, generator=generator)) for n in range(3)]
    write_latents(folder, ((name, value.bfloat16()) for name, value in pairs), "fingerprint")
    return shard_path(folder, 0)


def make_embeddings(folder: Path) -> Path:
    store = EmbeddingStore(folder, "encoder")
    store.add({f"push {n}": np.full((n + 1, 4), n, dtype=np.float16) for n in range(3)})
    return next(folder.glob("embeddings-*"))


def make_caption_facts(folder: Path) -> Path:
    from cosmos_worker.text.embeddings import CaptionFacts

    CaptionFacts(folder, "encoder").add({"push": TextFacts(3, 0.0)})
    return next(folder.glob("captions-*"))


def make_weights(folder: Path) -> Path:
    fetch(write_model(folder.parent / "source.pt"), folder)
    return folder / "model.pt"


MAKERS = [make_latents, make_embeddings, make_caption_facts, make_weights]
FIELDS = {make_latents: "latents_uri", make_weights: "model_uri"}


def verify_folder(make: Callable[[Path], Path], folder: Path, asked: str = "full") -> int:
    field = FIELDS.get(make, "embeddings_uri")
    config = TrainConfig.model_construct(**{"verify": asked, field: str(folder)})
    return verify.verify_inputs(config, Volumes())


def problem_of(make: Callable[[Path], Path], path: Path) -> str:
    """What is said of a file; empty if it passes."""
    try:
        verify_folder(make, path.parent)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("make", MAKERS)
def test_whole_files_are_as_they_were_written(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path / "made")

    assert verify_folder(make, tmp_path / "made") == 1


@pytest.mark.parametrize("make", MAKERS)
def test_every_flipped_bit_is_found_with_full(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "made")
    content = path.read_bytes()
    positions = range(0, len(content), EVERY if len(content) > 1 << 15 else 5)
    missed: list[tuple[int, str]] = []
    for number, position in enumerate(positions):
        changed = bytearray(content)
        changed[position] ^= 1 << number % 8
        path.write_bytes(changed)
        said = problem_of(make, path)
        missed += [] if path.name in said and "again" in said else [(position, said)]
    assert len(positions) > 10
    assert missed == []


@pytest.mark.parametrize("make", [make_latents, make_embeddings])
def test_every_truncation_is_found_without_being_asked(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "made")
    content = path.read_bytes()
    for length in (*range(0, len(content), 11), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"damaged or truncated|damaged shard"):
            LatentStore(path.parent) if make is make_latents else EmbeddingStore(path.parent)


def test_sampled_reads_nothing_before_the_stage(tmp_path: Path) -> None:
    make_latents(tmp_path / "made").write_bytes(b"damaged")

    assert verify_folder(make_latents, tmp_path / "made", "sampled") == 0


def test_flipped_bit_of_a_latent_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = make_latents(tmp_path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 4  # within the last latent; the value stays finite
    path.write_bytes(content)
    store = LatentStore(tmp_path)

    store.get(store.window_ids[0])
    with pytest.raises(
        DataError, match="fails its checksum; delete the file and run cache-latents"
    ):
        store.get(store.window_ids[-1])


def test_latents_of_earlier_versions_are_read_and_verified(tmp_path: Path) -> None:
    path = make_latents(tmp_path)
    store = LatentStore(tmp_path)
    values = {name: store.get(name) for name in store.window_ids}
    header = json.loads(store._shard(path).metadata()[HEADER])
    old = {name: header[name] for name in ("fingerprint", "sha256")}
    save_file(values, path, {HEADER: json.dumps(old, sort_keys=True)})

    earlier = LatentStore(tmp_path)
    assert earlier.digest == store.digest
    assert torch.equal(earlier.get("train/0@0"), values["train/0@0"])
    earlier.verify()
    values["train/0@0"] += 1
    save_file(values, path, {HEADER: json.dumps(old, sort_keys=True)})
    with pytest.raises(DataError, match="is not what cache-latents wrote"):
        LatentStore(tmp_path).verify()


def test_processes_share_the_files(tmp_path: Path) -> None:
    for number in range(3):
        write_latents(tmp_path / str(number), [(f"{number}", torch.ones(1, 1, 1, 1))], "f")
        (tmp_path / str(number) / "latents-00000.safetensors").rename(shard_path(tmp_path, number))
    store = LatentStore(tmp_path)
    changed = {"2": torch.zeros(1, 1, 1, 1)}
    header = store._shard(shard_path(tmp_path, 2)).metadata()
    save_file(changed, shard_path(tmp_path, 2), header)

    LatentStore(tmp_path).verify(1, 2)
    with pytest.raises(DataError, match=r"latents-00002\.safetensors"):
        LatentStore(tmp_path).verify(0, 2)


def test_file_that_a_record_names_and_that_is_gone_is_named(tmp_path: Path) -> None:
    make_weights(tmp_path / "made").unlink()

    with pytest.raises(CheckpointError, match=r"model\.pt: is gone, although fetched-model\.json"):
        verify_folder(make_weights, tmp_path / "made")
