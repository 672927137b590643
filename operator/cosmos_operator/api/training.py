"""The training of a PostTrainingJob: its experiment and its checkpoints, and the edits of both that are admitted."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from cosmos_operator.api.base import (
    ANOTHER_JOB,
    JOB_NAME_PATTERN,
    MAX_JOB_NAME,
    Address,
    ApiModel,
    Count,
    CountOrZero,
    rules,
    unchanged,
)
from cosmos_worker.config.values import MAX_NAME, MAX_OVERRIDE, MAX_OVERRIDES

OVERRIDE_PATTERN = r"(?s)^[A-Za-z_][A-Za-z0-9_.]*=.*$"
"""KEY=VALUE, with no space around =."""
Override = Annotated[str, Field(min_length=3, max_length=MAX_OVERRIDE, pattern=OVERRIDE_PATTERN)]


class TrainingSpec(ApiModel):
    """The experiment, and the options of it that this job changes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"self.experiment == oldSelf.experiment && {unchanged('seed')}",
                f"training.experiment and training.seed cannot be changed; {ANOTHER_JOB}",
            )
        )
    )

    experiment: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    """Name of the experiment, such as video2world_instruction_bridge_57frames; it decides every option of the
    training that is not given here. All experiments and their options are in docs/experiments.md."""
    overrides: Annotated[
        tuple[Override, ...],
        Field(max_length=MAX_OVERRIDES),
    ] = ()
    """Options of the experiment to change, each as key.sub=value, such as optimizer.learning_rate=1e-5. Once the
    training has begun, only those may change that do not decide its weights, such as trainer.micro_batch_size and
    parallel.sharding; they count from the next attempt on."""
    steps: Count | None = None
    """Number of optimizer steps. It may grow until the model is published, if the learning rate is constant after its
    warm-up: the training then goes on to the new number. Omitted: that of the experiment."""
    seed: CountOrZero | None = None
    """Seed of the order of the data and of the noise. Omitted: that of the experiment."""


class StartingPoint(ApiModel):
    """A checkpoint of another training run with the same data and the same options that decide the weights."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.job) != has(self.folder)", "give exactly one of job and folder")
        )
    )

    job: Annotated[str, Field(max_length=MAX_JOB_NAME, pattern=JOB_NAME_PATTERN)] | None = None
    """Name of a PostTrainingJob whose checkpoints lie in the same folder of the same claim; it may be deleted."""
    folder: Address | None = None
    """Address of the folder of a training run, such as status.checkpoints.latestAddress of a job."""
    step: Count | None = None
    """Step of the checkpoint. Omitted: the latest."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.job is None) == (self.folder is None):
            got = "neither" if self.job is None else "both"
            raise ValueError(f"got {got} of job and folder; give exactly one")
        return self


class CheckpointsSpec(ApiModel):
    """Checkpoints that the training writes, and the one that it starts from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (unchanged("from"), f"checkpoints.from cannot be changed; {ANOTHER_JOB}")
        )
    )

    every_steps: Count | None = None
    """Number of steps between two checkpoints. Omitted: that of the experiment."""
    every_minutes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Minutes of training after which a checkpoint to resume from is written, if none has been by then. Omitted: only
    the number of steps decides."""
    keep_last: Annotated[int, Field(ge=1, le=100)] | None = None
    """Number of the latest checkpoints that are kept, to resume from. Omitted: that of the experiment."""
    start_from: Annotated[StartingPoint | None, Field(alias="from")] = None
    """Checkpoint of another run that the training takes over: weights, optimizer, average and step. A run that has
    later checkpoints of its own continues from those. Omitted: the training starts from spec.model."""


_STEPS, _OLD_STEPS = "self.spec.training.steps", "oldSelf.spec.training.steps"
_PUBLISHED = "self.status.conditions.exists(c, c.type == 'Published' && c.status == 'True')"
_NAME, _OLD_NAME = "self.spec.outputs.name", "oldSelf.spec.outputs.name"
_ACCEPTED = (
    "self.status.conditions.exists(c, c.type == 'Accepted' && (c.status == 'True' || "
    "c.reason == 'NotAdmittedAnyMore'))"
)
RESULT_RULES = (
    (
        f"(has({_NAME}) == has({_OLD_NAME}) && (!has({_NAME}) || {_NAME} == {_OLD_NAME})) || "
        f"!has(self.status) || !has(self.status.conditions) || !{_ACCEPTED} || "
        "(has(self.status.state) && self.status.state == 'Failed')",
        "outputs.name cannot be changed once the job is accepted, because the name is reserved for it, unless the job "
        "has failed; create another PostTrainingJob with spec.checkpoints.from.job: NAME OF THIS ONE, which takes its "
        "training over",
    ),
    (
        # back to the number that the run is trained to, if the operator has refused a growth
        f"!has({_OLD_STEPS}) || (has({_STEPS}) && ({_STEPS} >= {_OLD_STEPS} || (has(self.status) && "
        f"has(self.status.run) && {_STEPS} >= self.status.run.steps)))",
        "training.steps may only grow; create another PostTrainingJob for fewer steps",
    ),
    (
        "!has(self.status) || !has(self.status.state) || self.status.state != 'Succeeded' || "
        f"(has({_STEPS}) == has({_OLD_STEPS}) && (!has({_STEPS}) || {_STEPS} == {_OLD_STEPS}))",
        "the job has succeeded, which is final; create another PostTrainingJob with more steps and "
        "spec.checkpoints.from.job: NAME OF THIS ONE, which continues its training where the learning rate is constant "
        "after its warm-up",
    ),
    (
        "self.spec.outputs == oldSelf.spec.outputs || !has(self.status) || "
        "(!(has(self.status.state) && self.status.state in ['Publishing', 'Generating', 'Succeeded']) && "
        f"!(has(self.status.conditions) && {_PUBLISHED}))",
        "outputs cannot be changed once the model is being published; create another PostTrainingJob with "
        "spec.checkpoints.from.job: NAME OF THIS ONE, which takes its training over",
    ),
)
"""Rules of the whole resource, since they need its status, and their messages: edits of steps and of outputs."""
