"""The folder of a job's training run, and the checkpoint of another run that it starts from. Pure."""

from __future__ import annotations

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_worker.config.identity import (
    INPUTS_THAT_DECIDE_WEIGHTS,
    differing_keys,
    options_that_decide_weights,
)
from cosmos_worker.config.stages import StartFrom, TrainConfig


def run_address(run: TrainConfig) -> str:
    """Folder of a training run below its output root: PROJECT/GROUP/NAME."""
    experiment = run.experiment
    return f"{run.target_uri}/{experiment.project}/{experiment.group}/{run.run_name}"


def starting_point(job: PostTrainingJob, document: TrainConfig, key: str) -> StartFrom | None:
    """The checkpoint that a job's training starts from; None if it starts from the model.

    Args:
        job: the job.
        document: document of its training.
        key: content key of its run: a run of the same training has the same one below another job's name.
    """
    start = job.spec.checkpoints.start_from
    if start is None:
        return None
    if start.folder is not None:
        return StartFrom(run_uri=start.folder, step=start.step)
    other = document.model_copy(update={"target_uri": f"checkpoints://{start.job}-{key}"})
    return StartFrom(run_uri=run_address(other), step=start.step)


def differing_training(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Differences of two trainings in what decides their weights, as ``name (old -> new)``."""
    inputs = [
        one.model_dump(mode="json", include=set(INPUTS_THAT_DECIDE_WEIGHTS)) for one in (old, new)
    ]
    options = [options_that_decide_weights(one.experiment) for one in (old, new)]
    return [*differing_keys(inputs[0], inputs[1]), *differing_keys(options[0], options[1])]
