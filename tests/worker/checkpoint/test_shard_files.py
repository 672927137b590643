"""Tensors on the way from the training to the files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import filesystem

from cosmos_worker.checkpoint.shard_files import load_shards, save_shards


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
