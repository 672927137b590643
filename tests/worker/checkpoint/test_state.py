"""Checkpoints on disk, among them one that is full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cosmos_worker.checkpoint.export import find_export, list_exports, prune_exports, write_exports
from cosmos_worker.checkpoint.state import list_states, load_latest_state, prune_states, save_state
from cosmos_worker.errors import CheckpointError, RetryableError

STATE = {"net.weight": torch.arange(4.0)}


def test_state_survives_a_file(tmp_path: Path) -> None:
    save_state(tmp_path, 5, {"model": STATE}, {"note": "x"})

    state = load_latest_state(tmp_path)

    assert state is not None
    assert state.progress == {"note": "x", "step": 5}
    assert torch.equal(state.tensors["model"]["net.weight"], STATE["net.weight"])


def test_no_state_is_none(tmp_path: Path) -> None:
    assert load_latest_state(tmp_path) is None


def test_incomplete_state_is_not_seen(tmp_path: Path) -> None:
    save_state(tmp_path, 5, {"model": STATE}, {})
    folder = save_state(tmp_path, 10, {"model": STATE}, {})
    (folder / "complete.json").unlink()

    state = load_latest_state(tmp_path)

    assert state is not None
    assert state.progress["step"] == 5


def test_old_states_are_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path, step, {"model": STATE}, {})

    prune_states(tmp_path, keep_last=2)

    assert [step for step, _ in list_states(tmp_path)] == [2, 3]


def test_full_disk_is_reported_and_leaves_the_earlier_checkpoint(small_disk: Path) -> None:
    save_state(small_disk, 1, {"model": STATE}, {})
    write_exports(small_disk, 1, STATE, STATE, torch.float32)
    large = {"net.weight": torch.zeros(1 << 20)}

    with pytest.raises(
        RetryableError, match=r"cannot write a checkpoint .* GiB of .* are free; make room"
    ):
        save_state(small_disk, 2, {"model": large}, {})
    with pytest.raises(RetryableError, match="earlier checkpoints are intact"):
        write_exports(small_disk, 2, large, None, torch.float32)

    state = load_latest_state(small_disk)
    assert state is not None
    assert state.progress["step"] == 1
    assert list(list_exports(small_disk, "reg")) == [1]
    assert [path.name for path in (small_disk / "state").iterdir()] == ["iter_000000001"]
    assert not list((small_disk / "checkpoints").glob(".*"))


def test_exports_are_found_and_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_exports(tmp_path, step, STATE, STATE, torch.bfloat16)

    prune_exports(tmp_path, keep=2)

    assert find_export(tmp_path, "ema", None)[0] == 3
    assert find_export(tmp_path, "reg", 2)[1].name == "iter_000000002_reg_model.pt"
    with pytest.raises(CheckpointError, match="no reg weights of step 1; there are: 2, 3"):
        find_export(tmp_path, "reg", 1)
    with pytest.raises(CheckpointError, match="no ema weights of step latest; there are: none"):
        find_export(tmp_path / "empty", "ema", None)
