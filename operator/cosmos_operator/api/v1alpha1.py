"""PostTrainingJob ``cosmos.dev/v1alpha1``: the contract with the user.

The one source of validation, of the CRD (``crd.py``) and of the description of each field; defaults live here.
Rules that depend on the experiment are checked in ``check.py``. Rules that relate fields are stated twice, once for
Python and once in CEL beside it, so that ``cosmos validate`` and the API server refuse the same jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from cosmos_operator.api.base import (
    ApiModel,
    ArtifactName,
    Count,
    PublishedName,
    Seconds,
    SecondsOrZero,
    immutable,
    rules,
)
from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.labels import QUEUE_LABEL
from cosmos_operator.api.machines import BackendSpec, ComputeSpec, SchedulingSpec, StorageSpec
from cosmos_operator.api.metadata import Metadata
from cosmos_operator.api.models import BaseModelSpec, EmbeddingsSpec, TokenizerSpec
from cosmos_operator.api.pod_template import PodTemplate, StagesSpec
from cosmos_operator.api.prompts_and_guards import (
    GuardrailsSpec,
    PromptUpsamplerSpec,
)
from cosmos_operator.api.source import ClaimFolder, Source
from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.api.training import RESULT_RULES, CheckpointsSpec, TrainingSpec

PIN_OF_DATASET = (
    "sha256 of claim, huggingFace and s3 is for models; a dataset is pinned by a commit in huggingFace.revision, or "
    "as an archive by url.sha256"
)


class DatasetSpec(ApiModel):
    """The dataset: videos and their captions."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (f"!has(self.source.{one}) || !has(self.source.{one}.sha256)", PIN_OF_DATASET)
                for one in ("claim", "huggingFace", "s3")
            )
        )
    )

    name: ArtifactName | None = None
    """Name of the dataset in folders and messages. On a cluster, a folder whose content has changed needs another
    name, because there a dataset is identified by its name and its address. Omitted: the last part of the
    source."""
    source: Source
    """Source of the dataset. On a cluster a folder in a claim is identified by its path, not by its content: if its
    files have changed since an earlier job, the job fails and asks for another dataset.name."""
    layout: Literal["Bridge", "Videos", "LeRobot", "Jsonl"] = "Bridge"
    """Layout of the dataset's files. Bridge: annotation/{train,val,test}/*.json with the videos that they name.
    Videos: videos/*.mp4 with metas/*.txt, or with text files of the same names beside the videos. LeRobot: a
    dataset of format v2.0, v2.1 or v3.0. Jsonl: a list of videos and captions, which is a .jsonl file, metadata.csv
    or .parquet, or prompts.txt with videos.txt."""
    camera: Annotated[int, Field(ge=0, le=63)] = 0
    """Index of the camera in an annotation's list of videos, from 0; for the layout Bridge only."""
    camera_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Name of the camera whose videos are used, such as observation.images.front; for the layout LeRobot only.
    Omitted: the only camera of the dataset; with several cameras the job fails and names them."""
    frame_rate: Literal["Constant", "Resample"] = "Constant"
    """Treatment of clips by their frame rate. Constant: every frame is used, and a clip whose frames are not shown
    at equal intervals is unusable. Resample: the frames that are shown at equal intervals are used, at the rate
    video.fps, which the experiment must give."""
    fit: Literal["Stretch", "Crop", "Pad"] = "Stretch"
    """Treatment of frames whose aspect ratio is not that of the experiment, in the dataset and in conditioning
    images and videos. Stretch: each side is scaled by its own factor, as in NVIDIA's recipe. Crop: the parts that
    protrude are cut off. Pad: the rest is filled with black."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0
    """Fraction of the episodes that is held out for validation, from 0 to 0.9; it has no effect on a dataset that
    names its own validation episodes."""
    validation_seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of the random choice of the held-out episodes."""
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest fraction of the clips that may be unusable, from 0 to 1; with more, the job fails."""

    @model_validator(mode="after")
    def _is_pinned_by_address(self) -> Self:
        if self.source.digest_of_files is not None:
            raise ValueError(f"source: {PIN_OF_DATASET}")
        return self


class RunPolicySpec(ApiModel):
    """Deadlines, retries, suspension and clean-up of the job. All of it may be changed at any time."""

    suspend: bool = False
    """True stops the job after it has saved a checkpoint; false lets it continue from there."""
    start_deadline_seconds: Seconds | None = None
    """Seconds after which the job fails if the training has done no step and not all of its pods run, counted from its
    first attempt, its resumption or its admission by a queue. Omitted: it may take any time to start."""
    partial_start_timeout_seconds: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Seconds for which some pods of a training on several nodes keep their nodes while others have none; then all are
    given back, and the training tries again later, so that two jobs do not block each other. 0: for ever. Omitted:
    600."""
    active_deadline_seconds: Seconds | None = None
    """Seconds of activity within which the model must be published; otherwise the job fails. Time for which the job is
    suspended, or waits in a queue, is not counted. Omitted: no limit."""
    stall_timeout_seconds: Seconds = 1800
    """Seconds without a report of progress after which the training is stopped and begins its next attempt, which
    counts towards maxAttempts."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of failed attempts of the training after which the job fails: crashed, stalled, out of memory, a failed
    read or write, a lost peer. Preemptions, evictions, lost nodes and GPU faults do not count. Two counted failures, or
    five GPU faults, in a row without a step of progress fail the job at once. A training that ran out of memory is
    suspended instead, until it is given more."""
    retry: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Counter that tells a failed job to try again when it is raised: failed stages are begun anew, the training goes
    on from its last checkpoint, and counted attempts and the active time start from zero."""
    ttl_seconds_after_finished: SecondsOrZero | None = None
    """Seconds after its end for which the finished job is kept; then it is deleted, and its files stay. With 0 it is
    deleted at once. Omitted: it is kept."""


class OutputsSpec(ApiModel):
    """The model that the job publishes, and its report."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.step) || !has(self.checkpoint) || self.checkpoint != 'Best'",
                "give step, or checkpoint: Best, not both",
            )
        )
    )

    name: PublishedName | None = None
    """Name of the published model, whose file is checkpoints/NAME/model.pt. Omitted: the job's name."""
    weights: Literal["Ema", "Regular"] = "Ema"
    """Weights to publish. Ema: the exponential moving average over the steps; for experiments with ema.enabled=false
    give Regular. Regular: those of the published step itself."""
    step: Count | None = None
    """Step whose checkpoint is published. Omitted: the one that the field checkpoint chooses."""
    checkpoint: Literal["Last", "Best"] = "Last"
    """Checkpoint to publish. Last: that of the last step. Best: that with the lowest loss on held-out data, for
    which the experiment needs trainer.keep_best=true."""
    adapter: bool = False
    """True also publishes the LoRA weights alone, as files of PEFT in checkpoints/NAME/adapter; for experiments
    with lora.rank above 0. They are merged into model.pt in any case."""
    report: bool = True
    """True writes report.html on the training and the generated videos, if the job has an inference list."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.step is not None and self.checkpoint == "Best":
            raise ValueError(f"got step {self.step} and checkpoint Best; give one of them")
        return self


class PostTrainingJobSpec(ApiModel):
    """The model to post-train, the data, the machines, and the use of the result."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.inference) || (has(self.{name}) && has(self.{name}.source)) || "
                    f"!self.inference.exists(item, has(item.{name}) && item.{name})",
                    f"an inference item has {name}, which needs spec.{name}.source",
                )
                for name in ("promptUpsampler", "guardrails")
            )
        )
    )

    model: Annotated[BaseModelSpec, Field(json_schema_extra=immutable("model"))] = BaseModelSpec()
    """Model that the training starts from."""
    tokenizer: Annotated[TokenizerSpec, Field(json_schema_extra=immutable("tokenizer"))] = (
        TokenizerSpec()
    )
    """Video tokenizer, which turns frames into latents and back."""
    dataset: Annotated[DatasetSpec, Field(json_schema_extra=immutable("dataset"))]
    """Videos and their captions."""
    embeddings: Annotated[EmbeddingsSpec, Field(json_schema_extra=immutable("embeddings"))] = (
        EmbeddingsSpec()
    )
    """Text encoder, whose embeddings of captions and prompts condition the network."""
    training: TrainingSpec
    """Experiment, and the options of it that this job changes."""
    compute: ComputeSpec = ComputeSpec()
    """Nodes, GPUs, image and resources of the pods. Changes apply to pods that are created afterwards: to the training
    from its next attempt on."""
    checkpoints: CheckpointsSpec = CheckpointsSpec()
    """Checkpoints that the training writes, and the one that it starts from."""
    storage: StorageSpec = StorageSpec()
    """Volumes of models, datasets, embeddings and checkpoints, which jobs may share."""
    scheduling: SchedulingSpec = SchedulingSpec()
    """Nodes, priority and queue of the training and of other stages with GPUs."""
    pod_template: PodTemplate | None = None
    """Changes of all pods of the job, merged into the operator's as Kubernetes merges a strategic patch, from the
    next pods on."""
    stages: StagesSpec = StagesSpec()
    """Changes of the pods of single stages."""
    run_policy: RunPolicySpec = RunPolicySpec()
    """Deadlines, retries, suspension and clean-up of the job."""
    backend: BackendSpec = BackendSpec()
    """Kind of Kubernetes object that runs the training. A change applies from the next attempt on."""
    credentials: CredentialsSpec = CredentialsSpec()
    """Secrets for the stages that download."""
    inference: Annotated[
        tuple[InferenceItem, ...],
        Field(
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **rules(
                    (
                        "oldSelf.all(old, self.exists(item, item.name == old.name))",
                        "inference items cannot be removed; append new ones",
                    )
                ),
            },
        ),
    ] = ()
    """Sets of videos to generate, with the published or the original model. Items may be appended until the job has
    ended, and cannot be changed or removed; for videos that are wanted later create an InferenceJob."""
    prompt_upsampler: Annotated[
        PromptUpsamplerSpec, Field(json_schema_extra=immutable("promptUpsampler"))
    ] = PromptUpsamplerSpec()
    """Model that rewrites short prompts into longer ones."""
    guardrails: Annotated[GuardrailsSpec, Field(json_schema_extra=immutable("guardrails"))] = (
        GuardrailsSpec()
    )
    """Models that block unsafe prompts and videos."""
    outputs: OutputsSpec = OutputsSpec()
    """Model that the job publishes, and its report. It may be changed until the model is being published, but for
    its name, which is fixed while an accepted job has not failed."""


_HAS_ENDED = (
    "has(oldSelf.status) && has(oldSelf.status.conditions) && oldSelf.status.conditions.exists(c, "
    "(c.type == 'Succeeded' || c.type == 'Failed') && c.status == 'True')"
)
_NUM_ITEMS = "(has({0}.spec.inference) ? {0}.spec.inference.size() : 0)"


class PostTrainingJob(ApiModel):
    """Post-trains a Cosmos-Predict1 Video2World model and generates videos with the result."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *RESULT_RULES,
            (
                f"!({_HAS_ENDED}) || {_NUM_ITEMS.format('self')} == {_NUM_ITEMS.format('oldSelf')}",
                "spec.inference cannot grow once the job has ended; create an InferenceJob with spec.model.job",
            ),
        )
    )

    api_version: Literal["cosmos.dev/v1alpha1"]
    kind: Literal["PostTrainingJob"]
    metadata: Metadata
    spec: PostTrainingJobSpec
    """Work that is asked for."""
    status: PostTrainingJobStatus | None = None
    """Work that was done, written by the operator."""

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.metadata.name

    @property
    def queue_name(self) -> str:
        """Name of the Kueue LocalQueue that the job names, in its specification or by Kueue's label; empty = none."""
        return self.spec.scheduling.queue_name or self.metadata.labels.get(QUEUE_LABEL, "")

    @property
    def sources(self) -> tuple[tuple[str, Source], ...]:
        """(field, source) of every source that the job names."""
        return tuple(sources(self))

    @property
    def dataset_claim(self) -> ClaimFolder | None:
        """Claim that holds the videos of the dataset; None if the dataset has another source."""
        return self.spec.dataset.source.claim

    @property
    def published_name(self) -> str:
        """Name of the published model."""
        return self.spec.outputs.name or self.name


SOURCES = {
    "model": ("source",),
    "tokenizer": ("source",),
    "embeddings": ("source",),
    "dataset": ("source",),
    "prompt_upsampler": ("source",),
    "guardrails": ("source", "text_classifier", "image_encoder"),
}
"""Block of a job → its fields that hold sources of files."""
PATHS_OF_SOURCES = tuple(
    (f"spec.{to_camel(block)}.{to_camel(field)}", block, field)
    for block, fields in SOURCES.items()
    for field in fields
)
"""The same fields: path in a document, block, field."""


def sources(job: PostTrainingJob) -> Iterator[tuple[str, Source]]:
    """(field, source) of every source that a job names."""
    for path, block, field in PATHS_OF_SOURCES:
        source = getattr(getattr(job.spec, block), field)
        if source is not None:
            yield path, source
