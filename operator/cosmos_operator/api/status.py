"""The status of a job: written by the operator, read by people and scripts.

Numbers with a fraction are text, as the Kubernetes API conventions ask. ``state`` is for people only; scripts
wait for conditions.

Operator and CustomResourceDefinition may be of different versions. So sets of words that grow are plain text in the CRD
(:class:`OpenSet`), and what a newer operator has written here is ignored where this one does not know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from cosmos_operator.api.base import ApiModel, ItemName

Text = Annotated[str, Field(max_length=1024)]
Message = Annotated[str, Field(max_length=4096)]
LogLine = Annotated[str, Field(max_length=256)]
Decimal = Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$")]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
NonNegative = Annotated[int, Field(ge=0)]

MAX_WORD = 64
"""Characters of a word of an open set."""
OPEN = "x-open-set"
"""Key of a JSON schema whose words are those of this version; it is not part of the CRD."""


class OpenSet:
    """Marks a set of words that later versions extend: this version writes those of its type, and reads any."""

    def __get_pydantic_core_schema__(self, source: Any, _: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        words = list(get_args(source))
        return core_schema.str_schema(min_length=1, max_length=MAX_WORD, metadata={"words": words})

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": schema["metadata"]["words"], OPEN: True}


StateWord = Literal[
    "Pending", "Preparing", "Queued", "Training", "Publishing", "Generating",
    "Suspended", "Succeeded", "Failed",
]  # fmt: skip
State = Annotated[StateWord, OpenSet()]
OutcomeWord = Literal[
    "Running", "Succeeded", "Suspended", "Stopped", "Preempted", "Evicted", "NodeLost", "Deleted",
    "Edited", "GpuFault", "IoFailed", "OutOfMemory", "PeerLost", "Crashed", "Stalled",
    "DeadlineExceeded", "UserError", "NotStarted", "Unattended", "PartialStart",
]  # fmt: skip
Outcome = Annotated[OutcomeWord, OpenSet()]
ConditionWord = Literal[
    "Accepted", "StorageReady", "ModelReady", "DatasetReady", "EmbeddingsReady", "LatentsReady",
    "InputsReady", "Admitted", "SpecApplied", "Running", "Progressing", "Published", "Suspended",
    "Succeeded", "Failed", "Ready", "Reconciling", "Stalled",
]  # fmt: skip
ConditionType = Annotated[ConditionWord, OpenSet()]


def _list_map(key: str, max_items: int) -> dict[str, object]:
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "maxItems": max_items,
    }


INVALID, NAME_TAKEN = "InvalidSpec", "PublishedNameTaken"
"""Reasons of the condition Accepted for which a new job fails at once."""


class StatusModel(ApiModel):
    """Base of the parts of the status: fields of a newer operator are ignored."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusModel):
    """One aspect of the job's state, for scripts to wait for."""

    type: ConditionType
    """Aspect of the job, such as ModelReady; docs/conditions.md explains each."""
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


class Progress(StatusModel):
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
    """Time at which the operator saw the last report of the training, by the operator's clock."""
    log_time: Time | None = None
    """Time of that report in the log, by the clock of the node, which may differ."""


class Checkpoints(StatusModel):
    """The latest complete checkpoint of the training."""

    latest_step: NonNegative | None = None
    """Step of the latest complete checkpoint."""
    latest_address: Text | None = None
    """Volume address of the folder of the training run that holds the checkpoint."""


class GpuHours(StatusModel):
    """GPU hours of the training. Those of the other stages are not counted."""

    used: Decimal = "0"
    """GPU hours for which pods held GPUs: from the scheduling of the first pod of an attempt to the attempt's end."""
    repeated: Decimal = "0"
    """GPU hours of the steps after the last checkpoint of an attempt, which the next attempt did again."""
    waited: Decimal = "0"
    """GPU hours that were waited for: from the creation of an attempt until all of its pods ran."""


class Attempt(StatusModel):
    """One attempt of the training: a workload from its creation to its end."""

    number: Annotated[int, Field(ge=1)]
    """Number of the attempt, from 1."""
    backend: Annotated[Literal["PyTorchJob", "Job", "TrainJob"], OpenSet()]
    """Kind of the workload that runs the attempt."""
    workload: Text
    """Name of the workload that runs the attempt."""
    spec_key: Text | None = None
    """Hash of the fields of spec that the attempt was created from; a change of them waits for the next attempt."""
    nodes: NonNegative | None = None
    """Number of pods of the attempt."""
    steps: NonNegative | None = None
    """Number of optimizer steps that the attempt trains to."""
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
    scheduled_time: Time | None = None
    """Time at which the first of its pods got a node."""
    running_time: Time | None = None
    """Time at which the operator first saw all of its pods run."""
    finish_time: Time | None = None
    """Time at which the operator saw the attempt end, or stopped it."""
    gpus: NonNegative | None = None
    """Number of GPUs of all its pods. Omitted: it uses none."""
    gpu_hours: GpuHours | None = None
    """GPU hours of the attempt; updated with its progress."""


class TrainingRun(StatusModel):
    """The training run that has begun: a change of spec that would need another one is refused."""

    folder: Text
    """Volume address that contains the run, with the content key of the options that decide its weights."""
    steps: NonNegative
    """Number of optimizer steps that the run is trained to."""
    overrides: Annotated[
        tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=64)
    ] = ()
    """Options of the experiment that the job has changed, as it was accepted last."""


class InferenceResult(StatusModel):
    """State of one inference item."""

    name: ItemName
    """Name of the item."""
    state: Annotated[Literal["Pending", "Running", "Succeeded", "Failed"], OpenSet()] = "Pending"
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


class StageResult(StatusModel):
    """The end of a stage, and the last words of its worker, which stay when its pods are gone."""

    name: Annotated[str, Field(min_length=1, max_length=96)]
    """Name of the stage, such as embed-text or generate-after."""
    state: Annotated[str, Field(max_length=32)]
    """Succeeded, Failed, or Retrying after a failure that is tried again."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """Reason of a failure in one word; OtherContainersLived if other containers did not end with the worker."""
    message: Text = ""
    """Result or reason for people: what was found, and what to do."""
    start_time: Time | None = None
    """Time at which the stage began."""
    finish_time: Time | None = None
    """Time at which the stage ended."""
    last_lines: Annotated[tuple[LogLine, ...], Field(max_length=10)] = ()
    """Last lines of the worker's log: three of a stage that succeeded, up to ten of one that failed."""


class Output(StatusModel):
    """A result of the job."""

    name: Annotated[str, Field(max_length=64)]
    """Name of the result: model or report."""
    address: Text
    """Volume address of the file."""
    step: NonNegative | None = None
    """Step of the training whose weights the published model has."""


class JobStatus(StatusModel):
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
    """Aspects of the job's state that scripts can wait for; docs/conditions.md explains each."""
    start_time: Time | None = None
    """Time at which the operator first saw the job."""
    completion_time: Time | None = None
    """Time at which the job succeeded or failed."""
    active_seconds: NonNegative = 0
    """Seconds for which the job was active before active_since; runPolicy.activeDeadlineSeconds limits them."""
    active_since: Time | None = None
    """Time since which the job is active; omitted while it is suspended or waits in a queue."""
    retry: NonNegative | None = None
    """Value of runPolicy.retry up to which the job has tried again."""
    inference: Annotated[
        tuple[InferenceResult, ...], Field(json_schema_extra=_list_map("name", 32))
    ] = ()
    """State of each inference item."""
    stages: Annotated[tuple[StageResult, ...], Field(json_schema_extra=_list_map("name", 48))] = ()
    """Stages that have ended, with the last lines of their logs."""
    outputs: Annotated[tuple[Output, ...], Field(json_schema_extra=_list_map("name", 8))] = ()
    """Results of the job: the published model, if it trains one, and the report."""

    @property
    def was_accepted(self) -> bool:
        """True once the operator has found that the job can be carried out."""
        accepted = next((one for one in self.conditions if one.type == "Accepted"), None)
        return accepted is not None and accepted.reason not in (INVALID, NAME_TAKEN)


class PostTrainingJobStatus(JobStatus):
    """Work that was done, written by the operator."""

    progress: Progress | None = None
    """Progress of the training, as its log reports it."""
    checkpoints: Checkpoints | None = None
    """Latest complete checkpoint of the training."""
    attempts: Annotated[tuple[Attempt, ...], Field(json_schema_extra=_list_map("number", 10))] = ()
    """Attempts of the training, the last ten."""
    gpu_hours: GpuHours | None = None
    """GPU hours of all attempts of the training, also of those that are listed no more."""
    failed_attempts: NonNegative = 0
    """Number of attempts that have failed and count towards runPolicy.maxAttempts."""
    forgiven_attempts: NonNegative = 0
    """Number of the last attempt before the job was told to try again, or given more memory; it and those before it
    count for nothing any more."""
    run: TrainingRun | None = None
    """Training run that has begun."""


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
