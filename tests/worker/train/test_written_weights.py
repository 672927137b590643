"""Whole weights for exports, read from the shards of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)
from torch import Tensor

from cosmos_worker.config.training import LoraConfig
from cosmos_worker.errors import RetryableError
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train import run_state, written_weights
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.shard_files import save_shards
from cosmos_worker.train.written_weights import read_weights
from cosmos_worker.weights.load import read_weight_file

WEIGHTS = {
    "net.a": torch.arange(6.0).reshape(2, 3),
    "net.b": torch.ones(3),
    "net.seq": torch.ones(1),
}
AVERAGE = {"net.a": 2 * WEIGHTS["net.a"]}


def write_shards(folder: Path, average: dict[str, Tensor]) -> Path:
    folder.mkdir()
    moments = {"state": {name: {"exp_avg": 5 * one} for name, one in WEIGHTS.items()}}
    save_shards(folder, {"model": WEIGHTS, "ema": average, "optimizer": moments}, None)
    return folder


def test_weights_and_averages_are_those_that_were_written(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", AVERAGE)
    frozen = {"net.f": torch.full((2,), 7.0, dtype=torch.bfloat16)}
    names = ["net.b", "net.f", "net.a", "net.seq"]

    regular, average = read_weights(shards, names, frozen)

    assert average is not None
    assert list(regular) == list(average) == names
    for name in names:
        expected = {**WEIGHTS, **frozen}[name]
        assert torch.equal(regular[name], expected)
        assert torch.equal(average[name], AVERAGE.get(name, expected))


def test_without_an_average_there_is_none(tmp_path: Path) -> None:
    _, average = read_weights(write_shards(tmp_path / "shards", {}), list(WEIGHTS), {})

    assert average is None


def test_files_of_another_node_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "shards", AVERAGE)
    (late,) = shards.glob("*.distcp")
    hidden = late.rename(tmp_path / "late")
    slept: list[float] = []

    def show_up(seconds: float) -> None:
        slept.append(seconds)
        hidden.rename(late)

    monkeypatch.setattr(written_weights.time, "sleep", show_up)

    regular, _ = read_weights(shards, list(WEIGHTS), {})

    assert torch.equal(regular["net.a"], WEIGHTS["net.a"])
    assert len(slept) == 1


def test_files_that_do_not_show_up_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(tmp_path / "shards", AVERAGE)
    (late,) = shards.glob("*.distcp")
    late.unlink()
    monkeypatch.setattr(written_weights, "VISIBLE_S", -1)

    with pytest.raises(RetryableError, match=r"cannot be read for the export: .*no such file"):
        read_weights(shards, list(WEIGHTS), {})


def test_a_weight_that_was_not_written_is_told(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", AVERAGE)

    with pytest.raises(RetryableError, match=r"has not the weight net\.other \(1 in all\)"):
        read_weights(shards, [*WEIGHTS, "net.other"], {})


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4, targets=("q",))])
def test_training_gathers_only_frozen_weights_and_these_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraConfig | None
) -> None:
    gathered: list[int] = []
    original = run_state.gather_to_main

    def note(tensors: dict[str, Tensor], is_main: bool) -> dict[str, Tensor]:
        gathered.append(len(tensors))
        return original(tensors, is_main)

    monkeypatch.setattr(run_state, "gather_to_main", note)
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    config = train_config(tmp_path, small_experiment(lora=lora, max_steps=4))
    train_stage.run(config, Volumes())

    assert len(gathered) == 1
    assert (gathered[0] > 0) == (lora is not None)
    run = run_path(tmp_path / "out")
    assert [step for step, _ in list_states(run)] == [2, 4]
    names = list(read_weight_file(tmp_path / "model.pt"))
    for kind in ("reg", "ema"):
        assert list(read_weight_file(list_exports(run, kind)[4])) == names
