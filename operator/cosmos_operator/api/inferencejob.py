"""InferenceJob ``cosmos.dev/v1alpha1``: videos that are wanted later, of a model that is there or soon will be.

Its items are those of ``spec.inference`` of a PostTrainingJob. What it leaves out comes from the PostTrainingJob that
it names, if it names one. Rules that relate fields are stated twice, in Python and in CEL beside it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cosmos_operator.api.base import (
    INFERENCE_KIND,
    JOB_NAME_PATTERN,
    MAX_JOB_NAME,
    ApiModel,
    ArtifactName,
    PublishedName,
    Seconds,
    SecondsOrZero,
    immutable,
    rules,
)
from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.image import Image
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.labels import QUEUE_LABEL
from cosmos_operator.api.machines import ResourcesSpec, SchedulingSpec, StorageSpec
from cosmos_operator.api.metadata import Metadata
from cosmos_operator.api.models import TextEncoderSpec, TokenizerSpec
from cosmos_operator.api.pod_template import PodTemplate, TimedStageSpec
from cosmos_operator.api.prompts_and_guards import GuardrailsSpec, PromptUpsamplerSpec
from cosmos_operator.api.quantities import EXTENDED_NAME_PATTERN, Quantity
from cosmos_operator.api.source import Source
from cosmos_operator.api.status import InferenceJobStatus
from cosmos_operator.api.training import Override
from cosmos_operator.api.v1alpha1 import PATHS_OF_SOURCES
from cosmos_worker.config.values import MAX_NAME, MAX_OVERRIDES

OF_THE_JOB = ("experiment", "overrides", "fit", "tokenizer", "embeddings")
"""Fields of spec that decide how the model was trained, so that they come from spec.model.job where it is given."""


ANOTHER_JOB = f"create another {INFERENCE_KIND} (finished stages are shared)"


def _fixed(field: str) -> dict[str, object]:
    return immutable(field, ANOTHER_JOB)


class SampledModelSpec(ApiModel):
    """The model that the videos are generated with. Give exactly one of job, published, and name or source."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.job), has(self.published), has(self.name) || has(self.source)]"
                ".filter(given, given).size() == 1",
                "give exactly one of job, published, and name or source",
            ),
            (
                "!has(self.loraScale) || has(self.name) || has(self.source)",
                "loraScale is for weights by name or source",
            ),
        )
    )

    job: Annotated[str, Field(max_length=MAX_JOB_NAME, pattern=JOB_NAME_PATTERN)] | None = None
    """PostTrainingJob of this namespace whose published model is used; it is waited for. Experiment, tokenizer, text
    encoder and dataset are those of that job."""
    published: PublishedName | None = None
    """Name of a published model: the file checkpoints/NAME/model.pt of spec.storage."""
    name: ArtifactName | None = None
    """Name of a model that was not trained here, as in spec.model of a PostTrainingJob. Omitted, with a source:
    Cosmos-Predict1-7B-Video2World."""
    source: Source | None = None
    """Source of its weights, as in spec.model of a PostTrainingJob. Omitted, with a name: the repository of that name
    on the Hugging Face Hub."""
    lora_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Scale with which LoRA weights in the source are merged into the network's, above 0. Omitted: the scale that the
    source states."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        by_name = self.name is not None or self.source is not None
        given = {"job": self.job is not None, "published": self.published is not None}
        given["name or source"] = by_name
        found = [name for name, is_given in given.items() if is_given]
        if len(found) != 1:
            raise ValueError(
                f"got {' and '.join(found) or 'nothing'}; give exactly one of job, published, and name or source"
            )
        if self.lora_scale is not None and not by_name:
            raise ValueError("loraScale: is for weights by name or source; remove it")
        return self


class SamplingComputeSpec(ApiModel):
    """GPUs, image and resources of the pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.resources)"
                " || !(has(self.resources.requests) && self.gpuResourceName in self.resources.requests)"
                " && !(has(self.resources.limits) && self.gpuResourceName in self.resources.limits)",
                "the resource of gpuResourceName stands in resources too; give gpus alone",
            ),
        )
    )

    image: Image | None = None
    """Image of the worker in all pods, best with its digest. Omitted: that of the installation."""
    gpus: Annotated[int, Field(ge=0, le=8)] = 0
    """Number of GPUs of the pod of each item that does not give its own number. With 0 videos are generated on the
    CPU."""
    gpu_resource_name: Annotated[str, Field(max_length=253, pattern=EXTENDED_NAME_PATTERN)] = (
        "nvidia.com/gpu"
    )
    """Name of the extended resource under which the nodes offer their GPUs."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of the pod of each item."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm in pods with several processes; it counts towards the memory limit."""

    @model_validator(mode="after")
    def _gpus_stand_once(self) -> Self:
        name = self.gpu_resource_name
        if name in self.resources.requests or name in self.resources.limits:
            raise ValueError(
                f"resources: {name} is the resource of gpuResourceName; remove it, and give gpus alone"
            )
        return self


class SamplingRunPolicySpec(ApiModel):
    """Deadline, suspension and clean-up of the job. All of it may be changed at any time."""

    suspend: bool = False
    """True stops the job; false lets it go on, with the videos that are finished kept."""
    active_deadline_seconds: Seconds | None = None
    """Seconds within which all videos must be generated once the model is ready; otherwise the job fails. Omitted: no
    limit."""
    retry: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Counter that tells a failed job to try again when it is raised: items that have failed are begun anew, the others
    are kept, and the active time starts from zero."""
    ttl_seconds_after_finished: SecondsOrZero | None = None
    """Seconds after its end for which the finished job is kept; then it is deleted, and its files stay. With
    0 it is deleted at once. Omitted: it is kept."""


class SamplingStagesSpec(ApiModel):
    """Changes of the pods of single stages."""

    fetch_model: TimedStageSpec = TimedStageSpec()
    """Stage that downloads models."""
    check_inputs: TimedStageSpec = TimedStageSpec()
    """Stage that reads the inputs of the items."""
    generate: TimedStageSpec = TimedStageSpec()
    """Stages that generate videos, one for each item."""
    report: TimedStageSpec = TimedStageSpec()
    """Stage that writes the report."""


class SamplingOutputsSpec(ApiModel):
    """The results beside the videos."""

    report: bool = True
    """True writes report.html on the generated videos, and with spec.model.job on the training too."""


_KEPT = (*OF_THE_JOB, "promptUpsampler", "guardrails", "storage")
"""Fields of spec that may be omitted and cannot be changed: a rule of the field itself is not asked when it comes or
goes."""
_ITEM_NEEDS = tuple(
    (
        f"has(self.model.job) || (has(self.{name}) && has(self.{name}.source)) || "
        f"!self.items.exists(item, has(item.{name}) && item.{name})",
        f"an item has {name}, which needs spec.{name}.source",
    )
    for name in ("promptUpsampler", "guardrails")
)


class InferenceJobSpec(ApiModel):
    """The model, the videos to generate, and the machines."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.model.job) != has(self.experiment)",
                "give experiment, unless the model is that of a job, which has one",
            ),
            (
                f"!has(self.model.job) || !({' || '.join(f'has(self.{name})' for name in OF_THE_JOB)})",
                f"with model.job, {', '.join(OF_THE_JOB)} are those of the job; remove them",
            ),
            (
                "has(self.model.job) || !self.items.exists(item, has(item.checkpoint) && item.checkpoint == 'Base')",
                "checkpoint: Base of an item needs model.job; otherwise there is one model only",
            ),
            *_ITEM_NEEDS,
            (
                " && ".join(f"has(self.{name}) == has(oldSelf.{name})" for name in _KEPT),
                f"{', '.join(_KEPT)} cannot be added or removed; create another InferenceJob",
            ),
        )
    )

    model: Annotated[SampledModelSpec, Field(json_schema_extra=_fixed("model"))]
    """Model that the videos are generated with."""
    items: Annotated[
        tuple[InferenceItem, ...],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **_fixed("items"),
            },
        ),
    ]
    """Sets of videos to generate, as in spec.inference of a PostTrainingJob."""
    experiment: Annotated[
        Annotated[str, Field(min_length=1, max_length=MAX_NAME)] | None,
        Field(json_schema_extra=_fixed("experiment")),
    ] = None
    """Name of the experiment that the model was trained with, or that its network has, which decides network and
    sampling options that are not given here. Omitted, with model.job only: that of the job."""
    overrides: Annotated[
        Annotated[tuple[Override, ...], Field(max_length=MAX_OVERRIDES)] | None,
        Field(json_schema_extra=_fixed("overrides")),
    ] = None
    """Options of the experiment to change, each as key.sub=value, such as video.fps=10. Omitted: none, or with
    model.job those of the job."""
    fit: Annotated[
        Literal["Stretch", "Crop", "Pad"] | None, Field(json_schema_extra=_fixed("fit"))
    ] = None
    """Treatment of conditioning images and videos whose aspect ratio is not that of the videos, as in spec.dataset of a
    PostTrainingJob. Omitted: Stretch, or with model.job that of the job."""
    tokenizer: Annotated[TokenizerSpec | None, Field(json_schema_extra=_fixed("tokenizer"))] = None
    """Video tokenizer. Omitted: Cosmos-Tokenize1-CV8x8x8-720p, or with model.job that of the job."""
    embeddings: Annotated[TextEncoderSpec | None, Field(json_schema_extra=_fixed("embeddings"))] = (
        None
    )
    """Text encoder. Omitted: google-t5/t5-11b, or with model.job that of the job."""
    prompt_upsampler: Annotated[
        PromptUpsamplerSpec | None, Field(json_schema_extra=_fixed("promptUpsampler"))
    ] = None
    """Model that rewrites short prompts into longer ones. Omitted: with model.job that of the job."""
    guardrails: Annotated[GuardrailsSpec | None, Field(json_schema_extra=_fixed("guardrails"))] = (
        None
    )
    """Models that block unsafe prompts and videos. Omitted: with model.job those of the job."""
    compute: SamplingComputeSpec | None = None
    """GPUs, image and resources of the pods. Omitted: those of an item of the job with model.job, otherwise one process
    on the CPU. Changes apply to items that have not begun, and with runPolicy.retry to those that have failed."""
    storage: Annotated[StorageSpec | None, Field(json_schema_extra=_fixed("storage"))] = None
    """Volumes of models, inputs and results. Omitted: with model.job those of the job, otherwise the claim cosmos."""
    scheduling: SchedulingSpec | None = None
    """Nodes, priority and queue of the pods with GPUs; pods without GPUs take none of it, for them there is
    podTemplate. Omitted: with model.job those of the job."""
    pod_template: PodTemplate | None = None
    """Changes of the pods of all stages, merged into the operator's as kubectl merges them; docs/pod-templates.md says
    what can be changed. Omitted: with model.job that of the job."""
    stages: SamplingStagesSpec | None = None
    """Changes of the pods of single stages. Omitted: with model.job those of the job."""
    run_policy: SamplingRunPolicySpec = SamplingRunPolicySpec()
    """Deadline, suspension and clean-up of the job."""
    credentials: CredentialsSpec | None = None
    """Secrets for the stage that downloads. Omitted: with model.job those of the job."""
    outputs: Annotated[SamplingOutputsSpec, Field(json_schema_extra=_fixed("outputs"))] = (
        SamplingOutputsSpec()
    )
    """Results beside the videos."""

    @model_validator(mode="after")
    def _the_jobs_or_its_own(self) -> Self:
        job = self.model.job
        given = [name for name in OF_THE_JOB if getattr(self, name) is not None]
        if job is not None and given:
            raise ValueError(
                f"{', '.join(given)}: come from the PostTrainingJob {job!r} of model.job; remove them"
            )
        if job is None and self.experiment is None:
            raise ValueError(
                "experiment: missing; give that of the model, such as video2world_instruction_bridge_57frames"
            )
        bases = [item.name for item in self.items if item.checkpoint == "Base"]
        if job is None and bases:
            raise ValueError(
                f"items: checkpoint Base of {', '.join(bases)} needs model.job; otherwise there is one model only, so "
                "remove it"
            )
        return self


class InferenceJob(ApiModel):
    """Generates videos with a model that a PostTrainingJob has published, or with another one."""

    api_version: Literal["cosmos.dev/v1alpha1"]
    kind: Literal["InferenceJob"]
    metadata: Metadata
    spec: InferenceJobSpec
    """Work that is asked for."""
    status: InferenceJobStatus | None = None
    """Work that was done, written by the operator."""

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.metadata.name

    @property
    def queue_name(self) -> str:
        """Name of the Kueue LocalQueue that the job names itself; empty = none."""
        own = None if self.spec.scheduling is None else self.spec.scheduling.queue_name
        return own or self.metadata.labels.get(QUEUE_LABEL, "")

    @property
    def sources(self) -> tuple[tuple[str, Source], ...]:
        """(field, source) of every source that the job names itself."""
        found = []
        for path, block, field in PATHS_OF_SOURCES:
            source = getattr(getattr(self.spec, block, None), field, None)
            if source is not None:
                found.append((path, source))
        return tuple(found)

    @property
    def items(self) -> tuple[InferenceItem, ...]:
        """The items, those without a number of GPUs with that of spec.compute if it is given."""
        compute = self.spec.compute
        if compute is None:
            return self.spec.items
        return tuple(
            item if item.gpus is not None else item.model_copy(update={"gpus": compute.gpus})
            for item in self.spec.items
        )
