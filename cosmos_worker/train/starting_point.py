"""The checkpoint of another run that a training begins with: found, and compared with the training. No torch here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.identity import (
    INPUTS_THAT_DECIDE_WEIGHTS,
    differing_keys,
    options_that_decide_weights,
)
from cosmos_worker.config.stages import StartFrom, TrainConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.earlier_runs import KEYED_NAME, read_run
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.checkpoint import list_states, read_progress
from cosmos_worker.train.same_run import experiment_of, with_initial_warmup

logger = logging.getLogger(__name__)

FIELD = "spec.checkpoints.from"


@dataclass(frozen=True)
class StartingPoint:
    """A complete checkpoint of another run: the run's folder, and the step."""

    run: Path
    step: int


def find_starting_point(config: TrainConfig, volumes: Volumes, own: Path) -> StartingPoint | None:
    """The checkpoint of another run that a training begins with; the main process calls this.

    Args:
        config: document of the training.
        volumes: where its folders are.
        own: folder of its run.

    Returns:
        None if it begins with the weights of the model, or continues from checkpoints of its own.

    Raises:
        CheckpointError: there is no such checkpoint, or it is of another training; the message names what differs.
    """
    start = config.start_from
    if start is None:
        return None
    if states := list_states(own):
        logger.info("%s is not used: the run has done %d steps itself", FIELD, states[-1][0])
        return None
    run = volumes.resolve(start.run_uri)
    step, folder = _choose(start, run, config)
    found = experiment_of(read_progress(folder), folder)
    asked = with_initial_warmup(run, config.experiment)
    old, new = (options_that_decide_weights(one) for one in (found, asked))
    _refuse_others(run, [*_differing_inputs(config, run), *differing_keys(old, new)])
    limit = config.experiment.trainer.max_steps
    if step > limit:
        raise CheckpointError(
            f"{FIELD}: the checkpoint of step {step} in {run} is beyond the {limit} steps of this training; choose an "
            f"earlier one with {FIELD}.step, or set spec.training.steps to {step} or more"
        )
    return StartingPoint(run, step)


def _choose(start: StartFrom, run: Path, config: TrainConfig) -> tuple[int, Path]:
    """Step and folder of the checkpoint that is asked for."""
    states = dict(list_states(run))
    if not states:
        _refuse_others(run, _describe_runs_of_other_options(config, run))
        raise CheckpointError(
            f"{FIELD}: no checkpoint of a training in {run}; give the name of a job that has trained, or as folder the "
            "address in its status.checkpoints.latestAddress"
        )
    step = max(states) if start.step is None else start.step
    if step not in states:
        kept = ", ".join(map(str, states))
        raise CheckpointError(
            f"{FIELD}.step: {run} has no checkpoint of step {step} (there: {kept})"
        )
    return step, states[step]


def _refuse_others(run: Path, differing: list[str]) -> None:
    if differing:
        raise CheckpointError(
            f"{FIELD}: the run in {run} is of another training: {', '.join(differing)} (there -> here); make them "
            "equal, or give the folder of its published model as spec.model.source to train its weights further"
        )


def _differing_inputs(config: TrainConfig, run: Path) -> list[str]:
    other = read_run(run)
    return [] if other is None else differing_keys(_inputs(other.config), _inputs(config))


def _inputs(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(INPUTS_THAT_DECIDE_WEIGHTS))


def _describe_runs_of_other_options(config: TrainConfig, run: Path) -> list[str]:
    """The options in which another run of the job differs from this one, and for which it has another folder."""
    root = run.parents[2]
    asked = KEYED_NAME.match(root.name)
    if asked is None or not root.parent.is_dir():
        return []
    for other in sorted(root.parent.iterdir()):
        match = KEYED_NAME.match(other.name)
        if match is None or match["job"] != asked["job"]:
            continue
        for folder in sorted(other.glob("*/*/*")):
            if (found := read_run(folder)) is not None:
                old, new = (
                    options_that_decide_weights(one.experiment) for one in (found.config, config)
                )
                return [*_differing_inputs(config, folder), *differing_keys(old, new)]
    return []
