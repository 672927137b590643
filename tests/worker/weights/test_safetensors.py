from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.safetensors import (
    LazyTensors,
    Limits,
    find_tensors,
    write_shards,
)

TENSORS = {f"t{i}": torch.arange(100.0) + i for i in range(5)} | {"count": torch.arange(3)}
"""Five tensors of 400 bytes, and one of integers."""


def write(folder: Path, limits: Limits) -> Path:
    """Write TENSORS under other names; returns the file or index."""
    folder.mkdir(exist_ok=True)
    write_shards(folder, "model", TENSORS, {f"new.{key}": key for key in TENSORS}, limits)
    found = list(folder.glob("*.index.json")) or list(folder.iterdir())
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("shard_bytes", "files"), [(1 << 20, 1), (2024, 1), (2023, 2), (800, 3), (1, 6)]
)
def test_shards_keep_to_their_size_and_hold_everything(
    tmp_path: Path, shard_bytes: int, files: int
) -> None:
    path = write(tmp_path / "out", Limits(shard_bytes=shard_bytes))
    tensors = LazyTensors(find_tensors(path))

    assert len(list(path.parent.glob("*.safetensors"))) == files
    assert set(tensors) == {f"new.{key}" for key in TENSORS}
    assert len(tensors) == len(TENSORS)
    for key, value in TENSORS.items():
        assert torch.equal(tensors[f"new.{key}"], value)


def test_index_is_that_of_the_hub(tmp_path: Path) -> None:
    index = json.loads(write(tmp_path / "out", Limits(shard_bytes=1000)).read_text())

    assert index["metadata"] == {"total_size": 5 * 400 + 3 * 8}
    assert index["weight_map"]["new.t0"] == "model-00001-of-00003.safetensors"
    assert set(index["weight_map"].values()) == {
        path.name for path in (tmp_path / "out").glob("*.safetensors")
    }


def test_type_changes_floating_point_only(tmp_path: Path) -> None:
    written = load_file(write(tmp_path / "out", Limits(torch.bfloat16)))

    assert written["new.t4"].dtype == torch.bfloat16
    assert written["new.count"].dtype == torch.int64


def test_tensors_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)

    write_shards(tmp_path, "model", {"a": whole, "b": whole.T}, {"a": "a", "b": "b"}, Limits())

    assert torch.equal(load_file(tmp_path / "model.safetensors")["b"], whole.T)


def test_one_shard_is_open_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path / "out", Limits(shard_bytes=800))
    tensors = LazyTensors(find_tensors(path))

    most = 0
    for name in list(tensors) + list(reversed(list(tensors))):
        tensors[name].sum()
        mapped = Path("/proc/self/maps").read_text().splitlines()
        most = max(most, len({line.split()[-1] for line in mapped if str(path.parent) in line}))

    assert most == 1


def break_index(path: Path) -> None:
    path.write_text("[]")


def empty_index(path: Path) -> None:
    path.write_text('{"metadata": {}}')


def lose_shard(path: Path) -> None:
    path.with_name("model-00002-of-00003.safetensors").unlink()


def truncate_shard(path: Path) -> None:
    shard = path.with_name("model-00002-of-00003.safetensors")
    shard.write_bytes(shard.read_bytes()[:-10])


def lose_tensor(path: Path) -> None:
    shard = path.with_name("model-00002-of-00003.safetensors")
    save_file({"new.t3": torch.zeros(100)}, shard)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_index, "model.safetensors.index.json: not an index of shards"),
        (empty_index, "not an index of shards .*weight_map.*; fetch the model again"),
        (lose_shard, "model-00002-of-00003.safetensors: no such shard; fetch the model again"),
        (truncate_shard, "model-00002-of-00003.safetensors: cannot be read as a weight file"),
        (lose_tensor, "lacks 1 tensor that model.safetensors.index.json names, such as new.t2"),
    ],
)
def test_damage_is_found_before_anything_is_loaded(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = write(tmp_path / "out", Limits(shard_bytes=800))
    damage(path)

    with pytest.raises(CheckpointError, match=message):
        find_tensors(path)


def test_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))

    with pytest.raises(
        CheckpointError, match=r"names .*secret\.safetensors.; shards lie beside their index"
    ):
        find_tensors(index)
