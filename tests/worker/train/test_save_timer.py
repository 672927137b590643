"""Checkpoints that are due by time: the main process's clock decides, and what is trained does not change."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.programs import run_program
from support.runs import assert_same_bits
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train import trainer as trainer_module
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.save_timer import SaveTimer

VOLUMES = Volumes()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


class Clock:
    """A clock that moves on by itself with each look."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def test_timer_is_due_after_its_minutes_and_begins_anew_with_each_checkpoint() -> None:
    clock = Clock(0)
    timer = SaveTimer(2, clock)
    clock.now = 119
    assert not timer.is_due
    clock.now = 120
    assert timer.is_due
    timer.restart()
    assert not timer.is_due


def test_no_minutes_are_never_over() -> None:
    assert not SaveTimer(None, Clock(1e9)).is_due


def test_checkpoint_by_time_has_all_to_continue_and_changes_nothing_that_is_trained(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = small_experiment(max_steps=6, save_every_steps=100)
    train_stage.run(train_config(inputs, slow, tmp_path / "plain"), VOLUMES)
    timed = small_experiment(max_steps=6, save_every_steps=100, save_every_minutes=1)
    monkeypatch.setattr(trainer_module, "SaveTimer", lambda m, _: SaveTimer(m, Clock(30)))
    train_stage.run(train_config(inputs, timed, tmp_path / "timed"), VOLUMES)

    plain, run = run_path(tmp_path / "plain"), run_path(tmp_path / "timed")
    assert [step for step, _ in list_states(plain)] == [6]
    steps = [step for step, _ in list_states(run)]
    assert len(steps) > 2
    assert steps[-1] == 6
    assert list(list_exports(run, "reg")) == [6], "exports are for the steps that people choose"
    assert_same_bits(tmp_path / "plain", tmp_path / "timed")


def test_run_that_ends_at_a_checkpoint_by_time_exports_its_weights(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = small_experiment(max_steps=6, save_every_steps=100, save_every_minutes=1, keep_last=1)
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "SaveTimer", lambda m, _: SaveTimer(m, Clock(61)))
        train_stage.run(train_config(inputs, timed, tmp_path), VOLUMES)
    run = run_path(tmp_path)
    for path in list_exports(run, "reg").values():
        path.unlink()

    train_stage.run(train_config(inputs, timed, tmp_path), VOLUMES)

    assert list(list_exports(run, "reg")) == [6]


@pytest.mark.parametrize(("rank", "expected"), [(0, True), (1, False)])
def test_only_the_main_process_looks_at_its_clock(rank: int, expected: bool) -> None:
    """Clocks of nodes differ; what the main process says reaches the others in the exchange of each step."""
    processes = ProcessGroup(rank=rank, world_size=1)
    timer = SaveTimer(1, Clock(100))

    assert (processes.is_main and timer.is_due) is expected


TRAINS = """
import os, sys
from pathlib import Path
from cosmos_worker.config.documents import load_yaml, parse_document
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.stages.train import run
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train import trainer
from cosmos_worker.train.save_timer import SaveTimer

class Clock:
    now = 0.0
    def __call__(self):
        self.now += 30 if os.environ["RANK"] == "0" else 100_000
        return self.now

trainer.SaveTimer = lambda minutes, clock: SaveTimer(minutes, Clock())
document = Path(sys.argv[1])
print(run(parse_document(TrainConfig, load_yaml(document), str(document)), Volumes())["steps"])
"""
"""Trains with clocks of which that of the other process is always over the time."""


@pytest.mark.multiproc
def test_processes_with_different_clocks_save_at_the_same_steps(
    inputs: Path, tmp_path: Path
) -> None:
    timed = small_experiment(max_steps=6, save_every_steps=100, save_every_minutes=1)
    document = tmp_path / "train.yaml"
    config = train_config(inputs, timed, tmp_path)
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    ended = run_program(TRAINS, 2, str(document), timeout=120)

    assert [one.code for one in ended] == [0, 0], "".join(one.errors for one in ended)
    steps = [step for step, _ in list_states(run_path(tmp_path))]
    assert 2 < len(steps) < 6, "by the clock of the main process, at less than every step"
