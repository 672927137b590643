"""What a training leaves to the memory: chosen where it runs, the same in all processes, told when it changes."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.runs import assert_same_bits
from support.training import small_experiment, train_config, write_model, write_training_inputs

from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.config.values import GIB
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.gpu_choice import choose_for_gpu

AUTO = ("parallel.activation_checkpointing=auto", "trainer.micro_batch_size=auto")
BRIDGE = "video2world_instruction_bridge_57frames_1gpu_80gb"


@pytest.mark.parametrize(
    ("gib", "expected"), [(80, ("block", 1)), (192, ("none", 2)), (24, ("block", 1))]
)
def test_gpu_that_is_there_decides(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gib: int,
    expected: tuple[str, int],
) -> None:
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=gib * GIB)
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    caplog.set_level(logging.INFO)

    found = choose_for_gpu(get_experiment(BRIDGE, AUTO), ProcessGroup(device_type="cuda"))

    kind, micro = expected
    assert (found.parallel.activation_checkpointing, found.trainer.micro_batch_size) == expected
    assert f"activation_checkpointing={kind} micro_batch_size={micro} planned_gib=" in caplog.text
    assert f"gpu_gib={gib}.0" in caplog.text


def test_without_a_gpu_nothing_is_computed_again() -> None:
    found = choose_for_gpu(get_experiment(BRIDGE, AUTO), ProcessGroup())

    assert (found.parallel.activation_checkpointing, found.trainer.micro_batch_size) == ("none", 1)


def test_run_that_is_continued_with_another_choice_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    auto = ParallelConfig(activation_checkpointing="auto")
    block = ParallelConfig(activation_checkpointing="block")
    whole = small_experiment(max_steps=4, parallel=auto)
    train_stage.run(train_config(tmp_path, whole, tmp_path / "whole"), Volumes())

    def train(steps: int, parallel: ParallelConfig) -> None:
        experiment = small_experiment(max_steps=steps, parallel=parallel)
        train_stage.run(train_config(tmp_path, experiment, tmp_path / "parts"), Volumes())

    train(2, auto)
    caplog.clear()
    train(4, block)

    assert (
        "continued with parallel.activation_checkpointing ('none' -> 'block'); steps" in caplog.text
    )
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
