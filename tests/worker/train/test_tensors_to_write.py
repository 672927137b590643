"""Tensors that several processes have are copied and written by one of them; real processes, gloo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.programs import run_program
from support.runs import latest_state
from support.training import small_experiment
from torch import Tensor

from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.train.saver import tensors_to_write
from cosmos_worker.train.shard_files import load_shards

SAVES = """
import json, sys
from pathlib import Path
import torch
from cosmos_worker.train import shard_files
from cosmos_worker.model.dtensor import local_part
from cosmos_worker.config.experiment import (Experiment)
from cosmos_worker.stages.train import build_model
from cosmos_worker.runtime.process_group import join_processes
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.parallelize import share_frames, replicate
from cosmos_worker.train.change_meter import Exports
from cosmos_worker.train.saver import Saver

def held_bytes(value):
    if isinstance(value, dict):
        return sum(map(held_bytes, value.values()))
    return local_part(value).untyped_storage().nbytes() if isinstance(value, torch.Tensor) else 0

held, copy_to_cpu = [], shard_files.copy_to_cpu

def copy_and_note(tensors):
    copies = copy_to_cpu(tensors)
    held.append(held_bytes(copies))
    return copies

shard_files.copy_to_cpu = copy_and_note
folder, experiment = Path(sys.argv[1]), Experiment.model_validate_json(sys.argv[2])
with join_processes("cpu", 1) as processes:
    processes = share_frames(experiment, processes)
    model = build_model(experiment, folder, processes)
    parallel = replicate(model, processes)
    optimizer = build_optimizer(model, experiment.optimizer)
    tensors = shard_files.collect(model, optimizer, True)
    for name, state in tensors["optimizer"]["state"].items():
        state["exp_avg"].copy_(2 * tensors["model"][name])
    saver = Saver(folder, processes, 9, 9)
    saver.begin(1, tensors, lambda _: Exports({}, None), {})
    assert saver.finish() == 1
    print(json.dumps([held[0], held_bytes(tensors)]))
    weights = {
        name: value.full_tensor() if hasattr(value, "placements") else value
        for name, value in model.state_dict().items()
    }
    if processes.is_main:
        torch.save((weights, list(tensors["optimizer"]["state"])), folder / "truth.pt")
"""
"""Prints the bytes that a process copies in a save, and those that it has."""


def tensors_of(weights: dict[str, Tensor]) -> dict[str, Any]:
    """State of a training: weights, two moments and a step of each, an average."""
    states = {
        name: {"step": torch.tensor(1.0), "exp_avg": value, "exp_avg_sq": value}
        for name, value in weights.items()
    }
    groups = [{"lr": 0.1, "params": list(weights)}]
    return {
        "model": weights,
        "optimizer": {"state": states, "param_groups": groups},
        "ema": {f"average.{name}": value for name, value in weights.items()},
    }


def leaves(tensors: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")


@pytest.mark.parametrize("processes", [1, 2, 3, 64])
def test_every_tensor_is_of_one_process_and_all_have_about_as_much(processes: int) -> None:
    tensors = tensors_of({f"w{n}": torch.zeros(n, 3) for n in range(1, 8)})

    shares = [tensors_to_write(tensors, rank, processes) for rank in range(processes)]

    dealt = [name for share in shares for name, _ in leaves(share)]
    assert sorted(dealt) == sorted(name for name, _ in leaves(tensors))
    sizes = [sum(value.nbytes for _, value in leaves(share)) for share in shares]
    largest = 2 * 7 * 3 * 4 + 4  # the moments of the last weight, and its step
    assert max(sizes) - min(sizes) <= largest
    assert all(
        share["optimizer"]["param_groups"] == tensors["optimizer"]["param_groups"]
        for share in shares
    )


def test_a_part_of_which_nothing_is_left_is_not_there() -> None:
    tensors = tensors_of({"w": torch.zeros(3)}) | {"ema": {}}

    first, second = (tensors_to_write(tensors, rank, 2) for rank in range(2))

    assert list(first) == ["model", "ema", "optimizer"]
    assert list(second) == ["ema", "optimizer"]
    assert (list(first["optimizer"]), list(second["optimizer"])) == (
        ["param_groups"],
        ["state", "param_groups"],
    )


def save_with_two(folder: Path, parallel: ParallelConfig) -> list[tuple[int, int]]:
    """Save a random network with two processes; bytes that each copies, and has."""
    experiment = small_experiment(parallel=parallel, init="random")
    ended = run_program(SAVES, 2, str(folder), experiment.model_dump_json())
    for process in ended:
        assert process.code == 0, process.errors
    return [tuple(json.loads(process.output.splitlines()[-1])) for process in ended]


@pytest.mark.multiproc
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "parallel",
    [ParallelConfig(), ParallelConfig(sharding="hybrid", shard_group_size=1)],
    ids=["none", "hybrid"],
)
def test_each_of_two_copies_half_and_one_process_reads_the_same_bits(
    tmp_path: Path, parallel: ParallelConfig
) -> None:
    saves = save_with_two(tmp_path, parallel)

    assert [copied for copied, _ in saves] == [pytest.approx(has / 2, rel=0.02) for _, has in saves]
    assert sum(copied for copied, _ in saves) == saves[0][1]
    state = latest_state(tmp_path)
    assert state is not None
    weights, trained = torch.load(tmp_path / "truth.pt", weights_only=True)
    read = {name: torch.full_like(value, 9) for name, value in weights.items()}
    moments = {name: {"exp_avg": read[name].clone()} for name in trained}
    load_shards(state.shards, {"model": read, "optimizer": {"state": moments}})
    for name, value in weights.items():
        assert torch.equal(read[name], value), name
    for name in trained:
        assert torch.equal(moments[name]["exp_avg"], 2 * weights[name]), name
