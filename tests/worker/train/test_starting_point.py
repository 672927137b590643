"""``checkpoints.from``: a training that takes another run over goes on as that run would have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.runs import assert_same_bits
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.stages import StartFrom, TrainConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports

VOLUMES = Volumes()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs, and in ``first-000000000000`` a run of six steps with checkpoints at 2, 4 and 6."""
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    train_stage.run(train_config(root, small_experiment(), root / "first-000000000000"), VOLUMES)
    return root


def starting_from(
    inputs: Path, target: Path, step: int | None = None, folder: Path | None = None, **trainer: int
) -> TrainConfig:
    """A training of ten steps that begins with a checkpoint of the first one."""
    config = train_config(inputs, small_experiment(**{"max_steps": 10, **trainer}), target)
    run = folder or run_path(inputs / "first-000000000000")
    return config.model_copy(update={"start_from": StartFrom(run_uri=str(run), step=step)})


@pytest.mark.parametrize("step", [None, 2])
def test_run_goes_on_bit_for_bit_as_the_other_would_have(
    inputs: Path, tmp_path: Path, step: int | None
) -> None:
    result = train_stage.run(starting_from(inputs, tmp_path / "second", step), VOLUMES)
    train_stage.run(
        train_config(inputs, small_experiment(max_steps=10), tmp_path / "whole"), VOLUMES
    )

    second = run_path(tmp_path / "second")
    assert_same_bits(tmp_path / "second", tmp_path / "whole")
    assert list_states(second)[0][0] == (step or 6), "it no longer needs the other run"
    assert f"begins with step {step or 6}" in result["note"]
    assert [step for step, _ in list_states(run_path(inputs / "first-000000000000"))] == [2, 4, 6]


def test_last_step_of_the_other_run_needs_no_training_and_has_its_weights(
    inputs: Path, tmp_path: Path
) -> None:
    result = train_stage.run(starting_from(inputs, tmp_path / "same", max_steps=6), VOLUMES)

    same = run_path(tmp_path / "same")
    assert result["steps"] == 6
    assert list(list_exports(same, "reg")) == [6]
    assert_same_bits(tmp_path / "same", inputs / "first-000000000000")


def test_run_with_checkpoints_of_its_own_continues_from_these(inputs: Path, tmp_path: Path) -> None:
    config = starting_from(inputs, tmp_path / "second", max_steps=8)
    train_stage.run(config, VOLUMES)
    gone = starting_from(inputs, tmp_path / "second", folder=tmp_path / "gone")

    assert train_stage.run(gone, VOLUMES)["steps"] == 10


def test_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    inputs: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3 \(there: 2, 4, 6\)"):
        train_stage.run(starting_from(inputs, tmp_path, 3), VOLUMES)
    with pytest.raises(CheckpointError, match="no checkpoint of a training in"):
        train_stage.run(starting_from(inputs, tmp_path, folder=tmp_path / "a/b/c/d"), VOLUMES)


def test_checkpoint_beyond_the_last_step_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"step 6 .* beyond the 4 steps"):
        train_stage.run(starting_from(inputs, tmp_path, max_steps=4), VOLUMES)


def test_run_with_other_options_is_refused_by_their_names(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"trainer.seed \(0 -> 5\).*spec.model.source"):
        train_stage.run(starting_from(inputs, tmp_path, seed=5), VOLUMES)


def test_run_with_another_model_is_refused(inputs: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.pt", seed=3)
    config = starting_from(inputs, tmp_path / "out").model_copy(update={"model_uri": str(other)})

    with pytest.raises(CheckpointError, match="of another training: model_uri"):
        train_stage.run(config, VOLUMES)


def test_job_whose_run_has_another_folder_is_refused_by_what_differs(
    inputs: Path, tmp_path: Path
) -> None:
    shutil.copytree(inputs / "first-000000000000", tmp_path / "first-000000000000")
    elsewhere = run_path(tmp_path / "first-111111111111")

    config = starting_from(inputs, tmp_path / "second", folder=elsewhere, seed=5)
    with pytest.raises(CheckpointError, match=r"trainer.seed \(0 -> 5\)"):
        train_stage.run(config, VOLUMES)
