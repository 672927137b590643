"""Measurement of the weights' change: after the checkpoint, skipped when the training stops, never an error."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from support.runs import stop_after
from support.training import (
    run_path,
    small_experiment,
    small_model,
    train_config,
    write_model,
    write_training_inputs,
)
from torch import Tensor

from cosmos_worker.config.training import LoraConfig
from cosmos_worker.errors import StopRequested
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.change_meter import ChangeMeter, Exports
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.saver import Saver
from cosmos_worker.weights.weight_change import measure_changes, read_change, read_changes

STATE = small_model().state_dict()
EXPORTS = Exports(STATE, STATE)


class Counted(Mapping[str, Tensor]):
    """Tensors that count how often each is read, and may ask a training to stop at the first."""

    def __init__(self, tensors: Mapping[str, Tensor], stop: StopSignal | None = None) -> None:
        self.tensors, self.reads, self.stop = tensors, Counter[str](), stop

    def __getitem__(self, name: str) -> Tensor:
        self.reads[name] += 1
        if self.stop is not None:
            self.stop.requested = True
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_base_is_opened_once_the_checkpoint_is_complete(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def open_base() -> Mapping[str, Tensor]:
        seen.append([step for step, _ in list_states(tmp_path)])
        return STATE

    here = ProcessGroup(0, 1)
    saver = Saver(tmp_path, here, keep_last=9, keep_exports=9, open_base=open_base)
    saver.begin(1, {"model": {"net.weight": torch.ones(2)}}, lambda _: EXPORTS, {})
    assert saver.finish() == 1
    saver.changes.wait()

    assert seen == [[1]]
    assert set(read_change(tmp_path, 1)) == {"reg", "ema"}


def test_each_tensor_of_the_base_is_read_once_and_no_frozen_one() -> None:
    base, frozen = Counted(STATE), {name for name in STATE if ".block.attn." not in name}
    moved = {name: one if name in frozen else one * 1.5 for name, one in STATE.items()}

    whole = measure_changes({"reg": moved, "ema": STATE}, STATE, {})
    changes = measure_changes({"reg": moved, "ema": STATE}, base, {}, frozen)

    assert changes == whole
    assert changes is not None
    assert changes["reg"]["network"] > 0 == changes["ema"]["network"] == changes["reg"]["mlp"]
    assert base.reads == {name: 1 for name in STATE if name not in frozen}


def test_what_is_measured_is_given_up_when_the_training_stops(tmp_path: Path) -> None:
    stop = StopSignal()
    base = Counted(STATE, stop)
    meter = ChangeMeter(tmp_path, lambda: base)

    with meter.until_stopped(stop):
        meter.begin(1, lambda: EXPORTS)
        meter.wait()
        assert base.reads.total() == 1
        meter.begin(2, lambda: EXPORTS)
        meter.wait()

    assert base.reads.total() == 1
    assert not read_changes(tmp_path)
    assert meter.lacks(2)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4, targets=("q",))])
def test_run_that_was_stopped_at_its_last_step_has_its_change_when_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraConfig | None
) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    config = train_config(tmp_path, small_experiment(lora=lora, max_steps=2))
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, Volumes())
    run = run_path(tmp_path / "out")
    assert [step for step, _ in list_states(run)] == [2]
    assert not read_changes(run)

    result = train_stage.run(config, Volumes())

    assert result["change"] == read_change(run, 2)
    assert result["change"]["ema"]["network"] > 0


@pytest.mark.parametrize("error", [SafetensorError("damaged"), RuntimeError("no"), KeyError("x")])
def test_no_failure_of_measuring_ends_a_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")

    def fail(*arguments: object, **options: object) -> Mapping[str, Tensor]:
        raise error

    monkeypatch.setattr(train_stage, "read_weight_file", fail)
    with caplog.at_level(logging.WARNING, logger="cosmos_worker"):
        result = train_stage.run(train_config(tmp_path, small_experiment(max_steps=1)), Volumes())

    assert result["checkpoint"] == 1
    assert "change" not in result
    assert caplog.text.count("change of the weights at step 1 is not known: ") == 1
