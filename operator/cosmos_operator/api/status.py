"""Status of a PostTrainingJob: derived from what runs, written by the operator, read by people and scripts.

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
    "InputsReady", "Admitted", "Running", "Progressing", "Published", "Suspended", "Succeeded", "Failed",
]  # fmt: skip


def _list_map(key: str, max_items: int) -> dict[str, object]:
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "maxItems": max_items,
    }


class Condition(ApiModel):
    """One question about the job and its answer."""

    type: ConditionType
    """The question."""
    status: Literal["True", "False", "Unknown"]
    """The answer."""
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
    """Cause in one CamelCase word."""
    message: Message = ""
    """Cause for people: what was found and what to do."""
    last_transition_time: Time
    """When the answer last changed."""
    observed_generation: NonNegative = 0
    """Generation of the job that the answer is about."""


class Progress(ApiModel):
    """How far the training is, as its log says."""

    step: NonNegative = 0
    """Optimizer steps done."""
    total_steps: NonNegative = 0
    """Optimizer steps to do."""
    summary: Text = ""
    """step/total, for kubectl get."""
    loss: Decimal | None = None
    """Loss at the last report."""
    samples_per_second: Decimal | None = None
    """Throughput at the last report."""
    eta_seconds: NonNegative | None = None
    """Seconds to the end of the training."""
    eta: Text = ""
    """The same for people, such as 1h42m."""
    last_report_time: Time | None = None
    """When the training last reported progress."""


class Checkpoints(ApiModel):
    """Complete checkpoints of the training run."""

    latest_step: NonNegative | None = None
    """Step of the latest complete checkpoint."""
    latest_address: Text | None = None
    """Volume address of the run that holds it."""


class Attempt(ApiModel):
    """One start of the training."""

    number: Annotated[int, Field(ge=1)]
    """1 for the first."""
    backend: Literal["PyTorchJob", "Job", "TrainJob"]
    """Kind of the workload."""
    workload: Text
    """Name of the workload."""
    start_step: NonNegative | None = None
    """Step that it continued from."""
    end_step: NonNegative | None = None
    """Last step that it reported."""
    outcome: Outcome = "Running"
    """How it ended."""
    message: Message = ""
    """What the worker said when it ended."""
    exit_code: NonNegative | None = None
    """Exit code of the worker that ended first."""
    node: Text | None = None
    """Node of that worker."""
    counted: bool = False
    """Whether it counts towards runPolicy.maxAttempts."""
    start_time: Time | None = None
    """When its pods were created."""
    finish_time: Time | None = None
    """When its last pod ended."""


class InferenceResult(ApiModel):
    """State of one inference item."""

    name: ItemName
    """Name of the item."""
    state: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    """How far it is."""
    address: Text | None = None
    """Volume address of the folder with its videos."""
    num_videos: NonNegative | None = None
    """Videos that were written."""
    num_blocked: NonNegative | None = None
    """Inputs that guardrails held back, which have no video; omitted = none."""
    num_with_faces: NonNegative | None = None
    """Videos in which guardrails blurred faces; omitted = nothing looked for them."""
    duration_seconds: NonNegative | None = None
    """Seconds that it took."""
    message: Message = ""
    """Why it failed."""


class Output(ApiModel):
    """Something that the job left."""

    name: Annotated[str, Field(max_length=64)]
    """What it is: model or report."""
    address: Text
    """Volume address."""
    step: NonNegative | None = None
    """Step of a published model."""


class PostTrainingJobStatus(ApiModel):
    """What was done."""

    observed_generation: NonNegative = 0
    """Generation of the job that this status is about."""
    state: State = "Pending"
    """One word for people."""
    message: Message = ""
    """One sentence for people."""
    conditions: Annotated[
        tuple[Condition, ...], Field(json_schema_extra=_list_map("type", 16))
    ] = ()
    """Answers that scripts can wait for."""
    start_time: Time | None = None
    """When work began."""
    completion_time: Time | None = None
    """When the job finished."""
    progress: Progress | None = None
    """How far the training is."""
    checkpoints: Checkpoints | None = None
    """Complete checkpoints of the training run."""
    attempts: Annotated[tuple[Attempt, ...], Field(json_schema_extra=_list_map("number", 10))] = ()
    """The last ten starts of the training."""
    failed_attempts: NonNegative = 0
    """Starts that count towards runPolicy.maxAttempts."""
    inference: Annotated[
        tuple[InferenceResult, ...], Field(json_schema_extra=_list_map("name", 32))
    ] = ()
    """State of each inference item."""
    outputs: Annotated[tuple[Output, ...], Field(json_schema_extra=_list_map("name", 8))] = ()
    """What the job left."""

    @property
    def was_accepted(self) -> bool:
        """True once the operator has found that the job can be carried out."""
        accepted = next((one for one in self.conditions if one.type == "Accepted"), None)
        return accepted is not None and accepted.reason != "InvalidSpec"


def read_status(document: Mapping[str, Any]) -> PostTrainingJobStatus:
    """The status in a job's document; one that this version cannot read counts as empty, and is written anew."""
    try:
        return PostTrainingJobStatus.model_validate(document.get("status") or {})
    except ValidationError:
        return PostTrainingJobStatus()
