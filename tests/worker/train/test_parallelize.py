"""A run computes the same for every distribution over processes. Real processes, gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.runs import assert_same_bits, assert_same_but_for_rounding, forget_after
from support.training import (
    run_path,
    small_experiment,
    train_config,
    train_with_processes,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import (
    LoraConfig,
    ParallelConfig,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.parallelize import form_shard_mesh, share_frames
from cosmos_worker.weights.adapter_reading import read_adapter
from cosmos_worker.weights.files import find_adapter

FRAMES = 4
WAYS = {
    "full, products kept": (2, {"sharding": "full", "activation_checkpointing": "selective"}),
    "two share frames": (2, {"context_parallel": 2}),
    "four share frames, full": (4, {"context_parallel": 4, "sharding": "full"}),
    "two share frames, hybrid, every block again": (
        4,
        {
            "context_parallel": 2,
            "sharding": "hybrid",
            "shard_group_size": 2,
            "activation_checkpointing": "block",
        },
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root, num_latent_frames=FRAMES)
    write_model(root / "model.pt")
    return root


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    target = tmp_path_factory.mktemp("alone")
    train_stage.run(train_config(inputs, experiment(), target), Volumes())
    return target


def experiment(lora: LoraConfig | None = None, **options: object) -> Experiment:
    parallel = ParallelConfig(**options)
    return small_experiment(FRAMES, parallel, lora, micro_batch_size=1)


def train(
    inputs: Path, target: Path, processes: int, lora: LoraConfig | None = None, **options: object
) -> str:
    """Train with torchrun; returns the log."""
    target.mkdir(exist_ok=True)
    config = train_config(inputs, experiment(lora, **options), target)
    return train_with_processes(config, target, processes)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
def test_spread_run_computes_what_one_process_does(
    inputs: Path, alone: Path, tmp_path: Path, way: str
) -> None:
    processes, options = WAYS[way]
    train(inputs, tmp_path, processes, **options)

    assert_same_but_for_rounding(alone, tmp_path)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_spread_low_rank_run_computes_what_one_process_does(inputs: Path, tmp_path: Path) -> None:
    lora = LoraConfig(rank=2, targets=("q", "mlp"))
    train_stage.run(
        train_config(inputs, experiment(lora), tmp_path / "alone"),
        Volumes(),
    )
    train(inputs, tmp_path / "spread", 2, lora, sharding="full")

    assert_same_but_for_rounding(tmp_path / "alone", tmp_path / "spread")
    alone, spread = (
        read_adapter(find_adapter(run_path(tmp_path / name) / "checkpoints"))
        for name in ("alone", "spread")
    )
    assert set(spread.tensors) == set(alone.tensors)
    for name, value in alone.tensors.items():
        torch.testing.assert_close(spread.tensors[name], value, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_saved_by_four_is_continued_by_two_and_by_one(
    inputs: Path, alone: Path, tmp_path: Path
) -> None:
    train(inputs, tmp_path, 4, sharding="full")
    run = run_path(tmp_path)
    assert [step for step, _ in list_states(run)] == [2, 4, 6]

    forget_after(4, tmp_path)
    assert "continued step=4" in train(inputs, tmp_path, 2, sharding="full")
    assert_same_but_for_rounding(alone, tmp_path)

    forget_after(2, tmp_path)
    train_stage.run(train_config(inputs, experiment(), tmp_path), Volumes())
    assert_same_but_for_rounding(alone, tmp_path)


@pytest.mark.parametrize("kind", ["block", "selective"])
def test_activation_checkpointing_changes_no_bit(
    inputs: Path, alone: Path, tmp_path: Path, kind: str
) -> None:
    chosen = experiment(activation_checkpointing=kind)
    train_stage.run(train_config(inputs, chosen, tmp_path), Volumes())

    assert_same_bits(alone, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_parallel": 3}, "parallel.context_parallel: 3 does not divide the 8 processes"),
        (
            {"context_parallel": 8},
            "parallel.context_parallel: 8 does not divide the 4 latent frames",
        ),
        (
            {"sharding": "hybrid", "shard_group_size": 3},
            "parallel.shard_group_size: 3 must divide the 8 processes",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_refused(options: dict[str, object], message: str) -> None:
    chosen = experiment().model_copy(update={"parallel": ParallelConfig(**options)})

    with pytest.raises(ConfigError, match=message):
        form_shard_mesh(chosen.parallel, share_frames(chosen, ProcessGroup(0, 8)))
