"""Folders of torch.distributed.checkpoint are models, and their pickles are not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fetched_weights import fetch
from support.foreign_weights import check_loads, prefixed, weights
from support.training import SMALL_NET

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.load import read_weight_file
from cosmos_worker.weights.safetensors import Limits

OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}


def save_dcp(folder: Path, content: dict[str, Any]) -> Path:
    import torch.distributed.checkpoint as dcp

    dcp.save(content, checkpoint_id=os.fspath(folder))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_folder_of_dcp_is_read_and_fetched(tmp_path: Path, nested: bool, prefix: str) -> None:
    """NVIDIA's trainers save model/, optim/, ...; torchtitan saves everything into one."""
    root = tmp_path / "iter_000000500"
    save_dcp(
        root / "model" if nested else root,
        {**prefixed(weights(), prefix), "optimizer": {"state": OPTIMIZER["state"]}, "step": 3},
    )

    check_loads(root)
    fetched = fetch(root, tmp_path / "Tiny")
    check_loads(fetched)
    names = {path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file()}
    place = "model/" if nested else ""
    assert names == {"fetched-model.json", f"{place}.metadata", f"{place}__0_0.distcp"}
    convert_weights(fetched, tmp_path / "pt", "pt", SMALL_NET, Limits())
    check_loads(tmp_path / "pt")


@pytest.mark.filterwarnings("ignore")
def test_folder_of_dcp_that_several_processes_have_written(tmp_path: Path) -> None:
    """Blocks of tensors in files of their own, as FSDP2 leaves them."""
    from torch.distributed.checkpoint import metadata as m
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    folder = tmp_path / "shards"
    folder.mkdir()
    described, places, sizes = {}, {}, [0, 0]
    for name, value in weights().items():
        blocks, offset = [], 0
        for rank, part in enumerate(value.chunk(2) if value.dim() else (value,)):
            path, begin = folder / f"__{rank}_0.distcp", sizes[rank]
            offsets = (
                torch.Size((offset, *(0,) * (value.dim() - 1))) if value.dim() else torch.Size()
            )
            with path.open("ab") as stream:
                torch.save(part.clone(), stream)
            sizes[rank] = path.stat().st_size
            blocks.append(m.ChunkStorageMetadata(offsets, part.shape))
            places[m.MetadataIndex(name, offsets)] = _StorageInfo(
                path.name, begin, sizes[rank] - begin
            )
            offset += len(part) if value.dim() else 0
        described[name] = m.TensorStorageMetadata(
            m.TensorProperties.create_from_tensor(value), value.shape, blocks
        )
    (folder / ".metadata").write_bytes(pickle.dumps(m.Metadata(described, None, places)))

    check_loads(folder)
    second = folder / "__1_0.distcp"
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(
        CheckpointError, match=r"__1_0\.distcp: truncated, it has \d+ bytes; \.metadata of this"
    ):
        read_weight_file(folder)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("/tmp/cosmos-executed",)


@pytest.mark.filterwarnings("ignore")
def test_metadata_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = save_dcp(tmp_path / "dcp", weights())
    (folder / ".metadata").write_bytes(pickle.dumps({"a": Hostile()}))

    with pytest.raises(
        CheckpointError, match=r"it names posix\.mkdir.*dcp_to_torch .*dcp model\.pt"
    ):
        read_weight_file(folder)
    assert not Path("/tmp/cosmos-executed").exists()


class Attribute:
    def __reduce__(self) -> tuple[object, tuple[object, str]]:
        return getattr, (Path, "home")


@pytest.mark.filterwarnings("ignore")
def test_members_of_enumerations_as_python_3_11_0_pickles_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.checkpoint import metadata

    def reduce(member: Any, _: object) -> tuple[object, tuple[type, str]]:
        return getattr, (type(member), member.name)

    monkeypatch.setattr(metadata._MEM_FORMAT_ENCODING, "__reduce_ex__", reduce)
    folder = save_dcp(tmp_path / "dcp", weights())
    assert b"getattr" in (folder / ".metadata").read_bytes()

    check_loads(folder)


@pytest.mark.filterwarnings("ignore")
def test_attribute_of_anything_else_is_refused(tmp_path: Path) -> None:
    folder = save_dcp(tmp_path / "dcp", weights())
    (folder / ".metadata").write_bytes(pickle.dumps({"a": Attribute()}))

    with pytest.raises(CheckpointError, match=r"it names builtins\.getattr"):
        read_weight_file(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["", "shards"])
def test_state_of_a_training_is_no_model(tmp_path: Path, place: str) -> None:
    state = tmp_path / "run" / "state" / "iter_000000500"
    save_dcp(state / "shards", {"model": weights()})
    for name in ("complete.json", "progress.json"):
        (state / name).write_text("{}")

    message = r"the state of a training, to resume it from; its weights are in .*run/checkpoints"
    with pytest.raises(CheckpointError, match=message):
        read_weight_file(state / place)
    with pytest.raises((CheckpointError, DataError)):
        fetch(state / place, tmp_path / "Tiny")
