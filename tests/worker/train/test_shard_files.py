"""Tensors on the way from the training to the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.fake_cuda import CUDA, fake_cuda
from torch import Tensor
from torch.distributed.checkpoint import filesystem
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cosmos_worker.config.experiment import OptimizerConfig
from cosmos_worker.model.dtensor import local_part
from cosmos_worker.train import shard_files
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.shard_files import collect, copy_to_cpu, load_shards, save_shards


def test_copies_of_a_gpu_go_through_page_locked_memory_and_keep_their_placement(
    group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor | None:
        if tensor.numel() == 1:
            return None  # there is no more of it
        locked.append(torch.empty(tensor.shape, dtype=tensor.dtype))
        return locked[-1]

    monkeypatch.setattr(shard_files, "_is_on_gpu", lambda tensor: True)
    monkeypatch.setattr(shard_files, "_page_locked_like", note)
    mesh = init_device_mesh("cpu", (1,))
    tensors = {
        "plain": torch.arange(6.0).reshape(2, 3).T,
        "sharded": distribute_tensor(torch.arange(6.0).reshape(3, 2), mesh, [Shard(0)]),
        "whole": distribute_tensor(torch.arange(4), mesh, [Replicate()]),
        "step": torch.tensor(3.0),
    }

    copies = copy_to_cpu(tensors)

    assert len(locked) == 3
    for (name, before), after in zip(tensors.items(), copies.values(), strict=True):
        assert torch.equal(local_part(before), local_part(after))
        assert local_part(after).data_ptr() != local_part(before).data_ptr(), name
        assert getattr(after, "placements", None) == getattr(before, "placements", None)
    assert copies["sharded"].device_mesh == mesh
    assert torch.equal(copies["sharded"].full_tensor(), tensors["sharded"].full_tensor())


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def tensors_in(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [one for some in inner for one in tensors_in(some)] if isinstance(
        value, dict | list | tuple
    ) else []  # fmt: skip


def test_copy_shares_nothing_with_the_training() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors = collect(model, optimizer, with_frozen=True)
    tensors["others"] = [torch.tensor(1.0), (torch.ones(2)[1:],), torch.ones(0), {"betas": [0.9]}]

    copies = copy_to_cpu(tensors)

    before, after = tensors_in(tensors), tensors_in(copies)
    assert len(before) == len(after) > 8
    own = {one.untyped_storage().data_ptr() for one in before if one.numel()}
    assert own.isdisjoint(one.untyped_storage().data_ptr() for one in after)
    assert not any(one.requires_grad for one in after)
    for left, right in zip(before, after, strict=True):
        assert torch.equal(left, right)
    tensors["others"][3]["betas"][0] = 0.5
    assert copies["others"][3] == {"betas": [0.9]}
    assert type(copies["others"][1]) is tuple


@pytest.mark.parametrize("placement", [Shard(0), Replicate()])
def test_copy_of_what_is_spread_stays_so(group: None, placement: Shard | Replicate) -> None:
    whole = torch.arange(6.0).view(3, 2)
    spread = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [placement])

    copied = copy_to_cpu({"model": {"weight": spread}})["model"]["weight"]

    assert isinstance(copied, DTensor)
    assert (copied.placements, copied.device_mesh) == (spread.placements, spread.device_mesh)
    assert torch.equal(local_part(copied), whole)
    assert local_part(copied).data_ptr() != local_part(spread).data_ptr()


def test_what_is_on_the_gpu_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[torch.device] = []

    class Notes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
                copied.append(args[0].device)
            return func(*args, **(kwargs or {}))

    with fake_cuda(monkeypatch):
        weight = torch.ones(4, device=CUDA)
        with Notes():
            copies = copy_to_cpu({"model": {"weight": weight}})
        assert copies["model"]["weight"].device.type == "cpu"
    assert copied == [CUDA]


def test_writing_waits_for_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("would wait for the GPU")

    weight = torch.arange(4.0)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(filesystem, "_OverlappingCpuLoader", refuse)
        save_shards(tmp_path / "shards", {"model": {"net.weight": weight}}, None)

    loaded = {"model": {"net.weight": torch.zeros(4)}}
    load_shards(tmp_path / "shards", loaded)
    assert torch.equal(loaded["model"]["net.weight"], weight)
