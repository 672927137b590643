"""The status of a job: written by the operator, read by people and scripts.

Numbers with a fraction are text, as the Kubernetes API conventions ask. ``state`` is for people only; scripts
wait for conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cosmos_operator.api.base import ApiModel, ItemName

Text = Annotated[str, Field(max_length=1024)]
Message = Annotated[str, Field(max_length=4096)]
Decimal = Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$")]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
NonNegative = Annotated[int, Field(ge=0)]

State = Literal[
    "Pending", "Preparing", "Queued", "Training", "Publishing", "Generating",
    "Suspended", "Succeeded", "Failed",
]  # fmt: skip
Outcome = Literal[
    "Running", "Succeeded", "Suspended", "Stopped", "Preempted", "Evicted", "NodeLost", "Deleted",
    "GpuFault", "IoFailed", "OutOfMemory", "PeerLost", "Crashed", "Stalled", "DeadlineExceeded",
    "UserError",
]  # fmt: skip
ConditionType = Literal[
    "Accepted", "StorageReady", "ModelReady", "DatasetReady", "EmbeddingsReady", "LatentsReady",
    "InputsReady", "Admitted", "Running", "Progressing", "Published", "Suspended", "Succeeded", "Failed", "Ready",
    "Reconciling", "Stalled",
]  # fmt: skip


def _list_map(key: str, max_items: int) -> dict[str, object]:
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "maxItems": max_items,
    }


class Condition(ApiModel):
    """One aspect of the job's state, for scripts to wait for."""

    type: ConditionType
    """Aspect of the job, such as ModelReady; docs/operator.md explains each."""
    status: Literal["True", "False", "Unknown"]
    """True, False, or Unknown while it is not decided."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
    """Reason for the status, in one CamelCase word."""
    message: Message = ""
    """Reason for the status, for people: what was found, and what to do."""
    last_transition_time: Time
    """Time at which the status of the condition last changed."""
    observed_generation: NonNegative = 0
    """Generation of the job that the condition was set for."""


class Progress(ApiModel):
    """The progress of the training, as its log reports it."""

    step: NonNegative = 0
    """Number of optimizer steps that are done."""
    total_steps: NonNegative = 0
    """Number of optimizer steps of the whole training."""
    summary: Text = ""
    """Step and total as STEP/TOTAL, for kubectl get."""
    loss: Decimal | None = None
    """Training loss at the last report; it contains a learned uncertainty and may be negative."""
    samples_per_second: Decimal | None = None
    """Samples that are trained on per second, at the last report."""
    eta_seconds: NonNegative | None = None
    """Estimated seconds to the end of the training."""
    eta: Text = ""
    """Estimated time to the end of the training for people, such as 1h42m."""
    last_report_time: Time | None = None
    """Time at which the training last reported progress."""


class Checkpoints(ApiModel):
    """The latest complete checkpoint of the training."""

    latest_step: NonNegative | None = None
    """Step of the latest complete checkpoint."""
    latest_address: Text | None = None
    """Volume address of the folder of the training run that holds the checkpoint."""


class Attempt(ApiModel):
    """One attempt of the training: a workload from its creation to its end."""

    number: Annotated[int, Field(ge=1)]
    """Number of the attempt, from 1."""
    backend: Literal["PyTorchJob", "Job", "TrainJob"]
    """Kind of the workload that runs the attempt."""
    workload: Text
    """Name of the workload that runs the attempt."""
    start_step: NonNegative | None = None
    """Step of the checkpoint that the attempt continued from."""
    end_step: NonNegative | None = None
    """Last step that the attempt reported."""
    outcome: Outcome = "Running"
    """Outcome of the attempt; Running until it has ended. docs/operator.md explains each."""
    message: Message = ""
    """Message of the worker, or of the operator, about the end of the attempt."""
    exit_code: NonNegative | None = None
    """Exit code of the process that explains the end of the attempt."""
    node: Text | None = None
    """Node of that process, or the node that is to blame for the end of the attempt."""
    counted: bool = False
    """True if the attempt counts towards runPolicy.maxAttempts."""
    start_time: Time | None = None
    """Time at which the workload was created."""
    finish_time: Time | None = None
    """Time at which the operator saw the attempt end, or stopped it."""


class InferenceResult(ApiModel):
    """State of one inference item."""

    name: ItemName
    """Name of the item."""
    state: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    """State of the item."""
    address: Text | None = None
    """Volume address of the folder with the item's videos."""
    num_videos: NonNegative | None = None
    """Number of videos that were written."""
    num_blocked: NonNegative | None = None
    """Number of inputs that the guardrails blocked, which have no video. Omitted: none."""
    num_with_faces: NonNegative | None = None
    """Number of videos in which the guardrails blurred faces. Omitted: faces are not blurred."""
    duration_seconds: NonNegative | None = None
    """Seconds that the item took."""
    message: Message = ""
    """Reason for which the item waits or has failed."""


class Output(ApiModel):
    """A result of the job."""

    name: Annotated[str, Field(max_length=64)]
    """Name of the result: model or report."""
    address: Text
    """Volume address of the file."""
    step: NonNegative | None = None
    """Step of the training whose weights the published model has."""


class JobStatus(ApiModel):
    """The status that jobs of both kinds have."""

    observed_generation: NonNegative = 0
    """Generation of the job that this status was written for."""
    state: State = "Pending"
    """State of the job in one word, for people; scripts wait for conditions."""
    message: Message = ""
    """State of the job in one sentence, for people."""
    conditions: Annotated[
        tuple[Condition, ...], Field(json_schema_extra=_list_map("type", 32))
    ] = ()
    """Aspects of the job's state that scripts can wait for; docs/operator.md explains each."""
    start_time: Time | None = None
    """Time at which the operator first saw the job."""
    completion_time: Time | None = None
    """Time at which the job succeeded or failed."""
    inference: Annotated[
        tuple[InferenceResult, ...], Field(json_schema_extra=_list_map("name", 32))
    ] = ()
    """State of each inference item."""
    outputs: Annotated[tuple[Output, ...], Field(json_schema_extra=_list_map("name", 8))] = ()
    """Results of the job: the published model, if it trains one, and the report."""

    @property
    def was_accepted(self) -> bool:
        """True once the operator has found that the job can be carried out."""
        accepted = next((one for one in self.conditions if one.type == "Accepted"), None)
        return accepted is not None and accepted.reason != "InvalidSpec"


class PostTrainingJobStatus(JobStatus):
    """Work that was done, written by the operator."""

    progress: Progress | None = None
    """Progress of the training, as its log reports it."""
    checkpoints: Checkpoints | None = None
    """Latest complete checkpoint of the training."""
    attempts: Annotated[tuple[Attempt, ...], Field(json_schema_extra=_list_map("number", 10))] = ()
    """Attempts of the training, the last ten."""
    failed_attempts: NonNegative = 0
    """Number of attempts that have failed and count towards runPolicy.maxAttempts."""


class InferenceJobStatus(JobStatus):
    """Work that was done, written by the operator."""


TRAINING_FIELDS = frozenset(PostTrainingJobStatus.model_fields) - frozenset(JobStatus.model_fields)
"""Fields of a status that only jobs with a training have."""


def read_status(document: Mapping[str, Any]) -> PostTrainingJobStatus:
    """The status in the document of a job of any kind; one that this version cannot read counts as empty.

    It has the fields of a training, which stay empty in that of an InferenceJob.
    """
    try:
        return PostTrainingJobStatus.model_validate(document.get("status") or {})
    except ValidationError:
        return PostTrainingJobStatus()
