"""Edits of a job whose training has begun: what the next attempt has, and what the run that has begun does not admit.

Pure.
"""

from __future__ import annotations

from typing import Any

from cosmos_operator.api.check import check_job, resolve_experiment
from cosmos_operator.api.pod_template import StagesSpec
from cosmos_operator.api.status import PostTrainingJobStatus, TrainingRun
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.stages import Stage, plan_stages
from cosmos_worker.config.identity import differing_keys, options_that_decide_weights
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.config.training import decays
from cosmos_worker.storage.volumes import content_key

NOT_IN_ATTEMPTS: dict[str, Any] = {
    "inference": True,
    "run_policy": True,
    "storage": True,
    "outputs": True,
    "credentials": True,
    "compute": {"preparation"},
    "stages": set(StagesSpec.model_fields) - {"train"},
}
"""Fields of spec that the pods of the training do not depend on, or that cannot be changed."""

Accepted = tuple[PostTrainingJob, tuple[Stage, ...], str]
"""A job, its stages, and the reason for which an edit of its training is left out; empty if none is."""


def spec_key(job: PostTrainingJob) -> str:
    """Hash of the fields of spec that an attempt is created from; a default of a later version changes nothing."""
    dumped = job.spec.model_dump(mode="json", exclude_defaults=True, exclude=NOT_IN_ATTEMPTS)
    return content_key(dumped)


def training_of(stages: tuple[Stage, ...]) -> TrainConfig:
    """Document of the training among the stages of a job."""
    document = next(stage.document for stage in stages if stage.kind == "train")
    assert isinstance(document, TrainConfig)
    return document


def describe_run(job: PostTrainingJob, stages: tuple[Stage, ...]) -> TrainingRun:
    """The training run of a job, to compare later edits with."""
    document = training_of(stages)
    return TrainingRun.model_construct(
        folder=document.target_uri,
        steps=document.experiment.trainer.max_steps,
        overrides=job.spec.training.overrides,
    )


def accept_edits(
    job: PostTrainingJob, stages: tuple[Stage, ...], previous: PostTrainingJobStatus
) -> Accepted:
    """The job without those edits of its training that the run that has begun does not admit.

    Args:
        job: the job as it is now.
        stages: its stages.
        previous: its status, which says which run has begun.

    Raises:
        InvalidSpec: other edits do not go with the training as it was before.
    """
    run = previous.run
    if run is None:
        return job, stages, ""
    document = training_of(stages)
    asked = document.experiment.trainer.max_steps
    is_same = document.target_uri == run.folder
    if is_same and (asked == run.steps or (asked > run.steps and not is_publishing(previous))):
        return job, stages, ""
    training = job.spec.training.model_copy(update={"steps": run.steps, "overrides": run.overrides})
    kept = job.model_copy(update={"spec": job.spec.model_copy(update={"training": training})})
    if problems := check_job(kept):
        raise InvalidSpec(problems)
    kept_stages = plan_stages(kept)
    if training_of(kept_stages).target_uri != run.folder:
        return job, stages, ""  # another version of the operator names the folder otherwise
    return kept, kept_stages, _describe_refusal(job, kept, is_same)


def is_publishing(previous: PostTrainingJobStatus) -> bool:
    """True once the training is over and its model is being published, or has been."""
    if previous.state in ("Publishing", "Generating"):
        return True
    return any((c.type, c.status) == ("Published", "True") for c in previous.conditions)


def _describe_refusal(job: PostTrainingJob, kept: PostTrainingJob, is_same: bool) -> str:
    """The reason for which the training goes on as it was before an edit, and what to do instead."""
    new, old = resolve_experiment(job), resolve_experiment(kept)
    asked, steps = new.trainer.max_steps, old.trainer.max_steps
    goes_on = f"the training goes on to {steps} steps as before"
    if is_same and asked > steps:
        return (
            f"spec.training.steps: {asked}, but the model of {steps} steps is being published; create another "
            f"PostTrainingJob with spec.checkpoints.from.job: {job.name}, which continues this training"
        )
    if is_same:
        return (
            f"spec.training.steps: {asked} is fewer than the {steps} of the run that has begun; {goes_on}; create "
            "another PostTrainingJob for fewer steps"
        )
    before, now = options_that_decide_weights(old), options_that_decide_weights(new)
    names = [name for name in differing_keys(before, now) if not name.startswith("trainer.max_s")]
    if not names and decays(new.optimizer):
        return (
            f"spec.training.steps: {asked} instead of {steps}, but the learning rate falls towards the last step "
            f"(optimizer.final_factor), so that no step of such a run has the same weights; {goes_on}; create another "
            f"PostTrainingJob for {asked} steps, which begins anew"
        )
    return (
        f"spec.training.overrides: {', '.join(names)} decides the weights of the run that has begun; {goes_on}; undo "
        "it, or create another PostTrainingJob, which begins anew"
    )
