"""A training whose number of steps is changed: continued if its learning rates stay the same, else reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.runs import assert_same_bits, losses, metrics, stop_after
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import CompatConfig, Experiment
from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.config.moved_options import as_before
from cosmos_worker.config.stages import PublishConfig, TrainConfig
from cosmos_worker.errors import CheckpointError, StopRequested
from cosmos_worker.stages import publish
from cosmos_worker.stages.run_stage import run_stage
from cosmos_worker.storage.earlier_runs import describe_length
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.checkpoint import SavedState
from cosmos_worker.train.same_run import check_same_options

VOLUMES = Volumes()
DECAY = {"final_factor": 0.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def with_schedule(experiment: Experiment, **schedule: object) -> Experiment:
    optimizer = experiment.optimizer.model_copy(update=schedule)
    return experiment.model_copy(update={"optimizer": optimizer})


def config_of(inputs: Path, target: Path, steps: int, **trainer: object) -> TrainConfig:
    """A stage document as the plan writes it, whose key contains the number of steps."""
    experiment = small_experiment(max_steps=steps, **trainer)
    return train_config(inputs, experiment, target).model_copy(update={"key": f"{steps}"})


def published_step(run: Path, target: Path, **options: object) -> int:
    document = PublishConfig(
        key="k", target_uri=str(target), run_uri=str(run), job="j", name="n", net=small_experiment().net, **options
    )  # fmt: skip
    return publish.run(document, VOLUMES)["step"]


def test_more_steps_continue_the_run_and_end_in_the_same_bits(inputs: Path, tmp_path: Path) -> None:
    whole, target = tmp_path / "whole", tmp_path / "push"
    run_stage("train", config_of(inputs, whole, 6), VOLUMES)
    run_stage("train", config_of(inputs, target, 3), VOLUMES)

    longer = run_stage("train", config_of(inputs, target, 6), VOLUMES)

    assert longer.result is not None
    assert longer.result["steps"] == 6
    assert (
        "is continued from its 3 steps to 6: the schedule of its learning rate stays as it was (warm-up of 2 steps, "
        "then constant)" in longer.message
    )
    assert_same_bits(whole, target)
    assert [line["step"] for line in metrics(target) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert losses(target) == losses(whole)
    assert published_step(run_path(target), tmp_path / "model", step=6) == 6
    again = run_stage("train", config_of(inputs, target, 6), VOLUMES)
    assert again.message.startswith("train was already done")


def test_more_steps_continue_a_run_that_was_stopped(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("train", config_of(inputs, tmp_path / "whole", 6), VOLUMES)
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(StopRequested):
            run_stage("train", config_of(inputs, tmp_path / "push", 4), VOLUMES)

    run_stage("train", config_of(inputs, tmp_path / "push", 6), VOLUMES)

    assert_same_bits(tmp_path / "whole", tmp_path / "push")


def test_fewer_steps_take_the_kept_weights_of_their_step_and_no_others(
    inputs: Path, tmp_path: Path
) -> None:
    run_stage("train", config_of(inputs, tmp_path, 6), VOLUMES)
    before = (run_path(tmp_path) / "metrics.jsonl").read_text()

    fewer = run_stage("train", config_of(inputs, tmp_path, 4), VOLUMES)

    assert fewer.result is not None
    assert (fewer.result["steps"], fewer.result["checkpoint"]) == (4, 4)
    assert "has done 6 steps, more than the 4 that are asked for: nothing is trained" in (
        fewer.message
    )
    assert (run_path(tmp_path) / "metrics.jsonl").read_text() == before
    assert published_step(run_path(tmp_path), tmp_path / "model", step=4) == 4
    with pytest.raises(
        CheckpointError,
        match=r"has done 6 steps, more than trainer\.max_steps=5 .*step 5 are not kept \(kept: 2, 4, 6\); set",
    ):
        run_stage("train", config_of(inputs, tmp_path, 5), VOLUMES)


def test_best_of_a_longer_run_is_not_published_for_a_shorter_one(
    inputs: Path, tmp_path: Path
) -> None:
    run_stage("train", config_of(inputs, tmp_path, 6, keep_best=True), VOLUMES)
    run = run_path(tmp_path)
    (run / "checkpoints" / "best.json").write_text('{"step": 6, "validation_loss": 0.1}')

    assert published_step(run, tmp_path / "model", step="best", last_step=6) == 6
    with pytest.raises(
        CheckpointError, match=r"best checkpoint is of step 6, since it was trained"
    ):
        published_step(run, tmp_path / "model", step="best", last_step=4)


def test_other_options_of_a_longer_run_are_refused(inputs: Path, tmp_path: Path) -> None:
    run_stage("train", config_of(inputs, tmp_path, 4), VOLUMES)

    with pytest.raises(CheckpointError, match=r"trained with other options: trainer\.seed"):
        run_stage("train", config_of(inputs, tmp_path, 2, seed=1), VOLUMES)


def test_schedule_that_falls_towards_the_end_begins_anew_and_is_named(
    inputs: Path, tmp_path: Path
) -> None:
    def config(steps: int, key: str) -> TrainConfig:
        given = config_of(inputs, tmp_path / f"push-{key}", steps)
        return given.model_copy(update={"experiment": with_schedule(given.experiment, **DECAY)})

    run_stage("train", config(4, "0123456789ab"), VOLUMES)
    longer = config(6, "ba9876543210")

    note = describe_length(longer, VOLUMES)

    old, new = (tmp_path / f"push-{key}" for key in ("0123456789ab", "ba9876543210"))
    assert note == (
        f"training begins anew in {run_path(new)}: 6 steps have another schedule of the learning rate (warm-up of 2 "
        f"steps, linear to 0 at step 6) than the run of 4 steps in {run_path(old)} (warm-up of 2 steps, linear to 0 at "
        "step 4), which has done 4; to use that run, create the job with spec.training.steps=4; to train its weights "
        "further under the new schedule, give the folder of its published model as spec.model.source, and another "
        "spec.outputs.name"
    )
    assert note in run_stage("train", longer, VOLUMES).message
    assert describe_length(longer, VOLUMES) is None

    # the advice: begin with what it published
    published_step(run_path(old), tmp_path / "published", step=4)
    further = config(6, "aaaaaaaaaaaa").model_copy(
        update={"model_uri": str(tmp_path / "published")}
    )
    assert describe_length(further, VOLUMES) is None
    assert run_stage("train", further, VOLUMES).result["steps"] == 6


def test_run_in_the_same_folder_with_a_falling_schedule_is_refused_with_the_new_one(
    inputs: Path, tmp_path: Path
) -> None:
    """As by the reference's command line, whose folders have no key."""

    def config(steps: int) -> TrainConfig:
        given = config_of(inputs, tmp_path, steps)
        return given.model_copy(update={"experiment": with_schedule(given.experiment, **DECAY)})

    run_stage("train", config(2), VOLUMES)

    with pytest.raises(
        CheckpointError,
        match=r"max_steps \(2 -> 4\) \(learning rates now: warm-up of 2 steps, linear to 0 at step 4\)",
    ):
        run_stage("train", config(4), VOLUMES)


def test_warm_up_that_follows_from_the_steps_stays_as_the_run_began_with_it(
    inputs: Path, tmp_path: Path
) -> None:
    """5 % of 20 steps are 1, of 40 steps 2."""

    def config(steps: int, warmup: int | None = None) -> TrainConfig:
        target = tmp_path / ("push" if warmup is None else "whole")
        given = config_of(inputs, target, steps, save_every_steps=20)
        experiment = with_schedule(given.experiment, warmup_steps=warmup)
        return given.model_copy(update={"experiment": experiment})

    run_stage("train", config(20), VOLUMES)
    longer = run_stage("train", config(40), VOLUMES)
    run_stage("train", config(40, warmup=1), VOLUMES)

    assert longer.message.endswith(
        "stays as it was (warm-up of 1 steps, then constant; a run of 40 steps from the beginning has a warm-up of 2)"
    )
    assert_same_bits(tmp_path / "whole", tmp_path / "push")
    resolved = yaml.safe_load((run_path(tmp_path / "push") / "config.yaml").read_text())
    assert resolved["experiment"]["optimizer"]["warmup_steps"] == 1
    run_stage("train", config(42), VOLUMES)


def test_runs_of_other_jobs_and_data_are_not_told(inputs: Path, tmp_path: Path) -> None:
    def config(target: str, steps: int) -> TrainConfig:
        given = config_of(inputs, tmp_path / target, steps)
        return given.model_copy(update={"experiment": with_schedule(given.experiment, **DECAY)})

    run_stage("train", config("push-0123456789ab", 2), VOLUMES)

    def note(target: str, **changes: object) -> str | None:
        return describe_length(config(target, 4).model_copy(update=changes), VOLUMES)

    assert note("push-ba9876543210") is not None
    assert note("push-red-ba9876543210") is None
    assert note("push-ba9876543210", dataset_uri="other") is None
    assert note("somewhere") is None


def test_checkpoint_with_the_options_of_an_earlier_version_belongs_to_the_same_run() -> None:
    experiment = small_experiment()
    strong = experiment.model_copy(update={"compat": CompatConfig(bfloat16_sigma=True)})
    earlier = as_before(options_that_decide_weights(strong))
    state = SavedState(Path("state/iter_000000003"), {"experiment": earlier})

    check_same_options(state, strong)
    with pytest.raises(CheckpointError, match=r"compat\.bfloat16_sigma \(True -> False\)"):
        check_same_options(state, experiment)
