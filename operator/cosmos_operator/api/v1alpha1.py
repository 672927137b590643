"""PostTrainingJob ``cosmos.dev/v1alpha1``: the contract with the user.

The one source of validation, of the CRD (``crd.py``) and of the description of each field; defaults live here.
What only the experiments know is checked in ``check.py``. Rules that relate fields are stated twice, once for
Python and once in CEL beside it, so that ``cosmos validate`` and the API server refuse the same jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import Self

from cosmos_operator.api.base import (
    JOB_NAME_PATTERN,
    MAX_JOB_NAME,
    ApiModel,
    ArtifactName,
    Count,
    CountOrZero,
    ObjectName,
    PublishedName,
    Seconds,
    immutable,
    rules,
)
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.machines import ComputeSpec, SchedulingSpec, StorageSpec
from cosmos_operator.api.prompts_and_guards import (
    GuardrailsSpec,
    PromptUpsamplerSpec,
)
from cosmos_operator.api.source import Source
from cosmos_operator.api.status import PostTrainingJobStatus


class BaseModelSpec(ApiModel):
    """The network to start from."""

    name: ArtifactName = "Cosmos-Predict1-7B-Video2World"
    """Name of the model; its size must be that of the experiment."""
    source: Source | None = None
    """Folder with the weights: model.pt, safetensors, diffusers, or iter_*_model.pt of a training; omitted = the
    repository nvidia/NAME on the Hugging Face Hub."""
    lora_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Factor of the LoRA corrections that the weights hold beside the network's; they are merged. NVIDIA's LoRA
    experiments use 1; omitted = the weights say it, or hold none. PEFT's adapter in the folder says its own."""


class TokenizerSpec(ApiModel):
    """The video tokenizer."""

    name: ArtifactName = "Cosmos-Tokenize1-CV8x8x8-720p"
    """Name of the tokenizer."""
    source: Source | None = None
    """Folder with encoder.jit, decoder.jit and mean_std.pt; omitted = the repository nvidia/NAME."""


class DatasetSpec(ApiModel):
    """The videos and their captions."""

    name: ArtifactName | None = None
    """Name for folders and messages; omitted = the last part of the source. A folder whose content has changed needs
    another name on a cluster, as its path alone tells what it is."""
    source: Source
    """Where the dataset is. On a cluster a claim is known by its path, not its content: if its files have changed
    since an earlier job, the job fails and asks for another dataset.name."""
    layout: Literal["Bridge", "Videos", "LeRobot", "Jsonl"] = "Bridge"
    """Bridge: annotation/{train,val,test}/*.json with the videos they name; Videos: videos/*.mp4 with metas/*.txt, or
    with texts of the same names beside them; LeRobot: a dataset of format v2.0, v2.1 or v3.0; Jsonl: a list of videos
    and captions (a .jsonl file, metadata.csv or .parquet, or prompts.txt with videos.txt)."""
    camera: Annotated[int, Field(ge=0, le=63)] = 0
    """Index into an annotation's list of videos (layout Bridge)."""
    camera_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Camera whose videos are used, such as observation.images.front (layout LeRobot); omitted = the only one."""
    frame_rate: Literal["Constant", "Resample"] = "Constant"
    """Constant: a clip whose frames are not shown at equal intervals is unusable; Resample: take the frames that are
    shown at equal intervals, at the rate video.fps, which the experiment must give."""
    fit: Literal["Stretch", "Crop", "Pad"] = "Stretch"
    """How frames of another aspect ratio are brought to the size of the experiment: Stretch each side by its own
    factor, as NVIDIA's recipe does; Crop what protrudes; Pad with black. Counts for conditioning images and videos
    as well."""
    validation_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0
    """Share of the episodes that is held out for validation where the dataset itself holds out none."""
    validation_seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of the draw of these episodes."""
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Fail if a larger share of the clips is unusable."""


class EmbeddingsSpec(ApiModel):
    """The text encoder whose embeddings the network is given."""

    encoder: ArtifactName = "google-t5/t5-11b"
    """Name of a T5 encoder; its width must be that of the experiment."""
    source: Source | None = None
    """Folder that transformers can load; omitted = the repository of that name on the Hugging Face Hub."""
    max_length: Annotated[int, Field(ge=1, le=512)] | None = None
    """Longest caption in tokens; omitted = as the experiment says."""
    max_unknown_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Fail if a larger share of the captions is more than half unknown to the encoder; clips with no other caption are
    left out of the training."""


class TrainingSpec(ApiModel):
    """The numbers of the training run."""

    experiment: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of an experiment, such as video2world_instruction_bridge_57frames."""
    overrides: Annotated[
        tuple[Annotated[str, Field(min_length=3, max_length=512)], ...], Field(max_length=64)
    ] = ()
    """Values of the experiment to change, as key.sub=value."""
    steps: Count | None = None
    """Optimizer steps; omitted = as the experiment says."""
    seed: CountOrZero | None = None
    """Seed of the data order and the noise; omitted = as the experiment says."""


class CheckpointsSpec(ApiModel):
    """Checkpoints of the training run."""

    every_steps: Count | None = None
    """Steps between checkpoints; omitted = as the experiment says."""
    keep_last: Annotated[int, Field(ge=1, le=100)] | None = None
    """Checkpoints to resume from that are kept; omitted = as the experiment says."""


class RunPolicySpec(ApiModel):
    """How long, how often, and whether to run at all. May be changed at any time."""

    suspend: bool = False
    """True: save a checkpoint and stop; false again: continue from it."""
    start_deadline_seconds: Seconds | None = None
    """Fail if the training has done no step, nor do all its pods run, this long after its turn came; omitted = wait."""
    active_deadline_seconds: Seconds | None = None
    """Fail if the model is not published this long after the job was first seen; omitted = no limit."""
    stall_timeout_seconds: Seconds = 1800
    """Restart the training if it reports no progress for this long."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts that may crash or stall; preemptions do not count. Two in a row without progress end the job at once."""
    ttl_seconds_after_finished: Seconds | None = None
    """Delete the job this long after it finished (its files stay); omitted = keep it."""


class BackendSpec(ApiModel):
    """What runs the training."""

    type: Literal["Auto", "PyTorchJob", "Job", "TrainJob"] = "Auto"
    """PyTorchJob or TrainJob of Kubeflow, or indexed Job; Auto: PyTorchJob where it is installed, otherwise Job.
    TrainJob needs Trainer 2.2 or later, and in a queue Kueue 0.17 or later."""


class SecretKey(ApiModel):
    """One key of a Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key in the Secret."""


class KeysSecret(ApiModel):
    """A Secret in the job's namespace that holds the keys of an S3 store under their usual names."""

    name: ObjectName
    """Name of the Secret; its keys are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if there is one,
    AWS_SESSION_TOKEN."""


class CredentialsSpec(ApiModel):
    """Secrets of the stages that fetch; on one machine the environment is used instead: HF_TOKEN, AWS's variables."""

    hugging_face: SecretKey | None = None
    """Token for the Hugging Face Hub; omitted = the installation's token, if it has one."""
    s3: KeysSecret | None = None
    """Keys of an S3 store; omitted = those of the installation, or of the role that the pods have, else public buckets
    only."""


class OutputsSpec(ApiModel):
    """What the job leaves."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.step) || !has(self.checkpoint) || self.checkpoint != 'Best'",
                "give step, or checkpoint: Best, not both",
            )
        )
    )

    name: PublishedName | None = None
    """Name of the published model, checkpoints/NAME/model.pt; omitted = the job's name."""
    weights: Literal["Ema", "Regular"] = "Ema"
    """Averaged weights, or those of the last step."""
    step: Count | None = None
    """Step to publish; omitted = as checkpoint says."""
    checkpoint: Literal["Last", "Best"] = "Last"
    """Last checkpoint, or that with the lowest held-out loss, for which the experiment needs trainer.keep_best=true."""
    adapter: bool = False
    """Publish the LoRA corrections alone too, as PEFT's files in checkpoints/NAME/adapter; for experiments with
    lora.rank above 0. model.pt contains them either way."""
    report: bool = True
    """Write report.html, if the job has an inference list."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.step is not None and self.checkpoint == "Best":
            raise ValueError(f"got step {self.step} and checkpoint Best; give one of them")
        return self


class PostTrainingJobSpec(ApiModel):
    """What to post-train, on what, where, and what to do with the result."""

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
    """The network to start from."""
    tokenizer: Annotated[TokenizerSpec, Field(json_schema_extra=immutable("tokenizer"))] = (
        TokenizerSpec()
    )
    """The video tokenizer."""
    dataset: Annotated[DatasetSpec, Field(json_schema_extra=immutable("dataset"))]
    """The videos and their captions."""
    embeddings: Annotated[EmbeddingsSpec, Field(json_schema_extra=immutable("embeddings"))] = (
        EmbeddingsSpec()
    )
    """The text encoder."""
    training: Annotated[TrainingSpec, Field(json_schema_extra=immutable("training"))]
    """The numbers of the training run."""
    compute: Annotated[ComputeSpec, Field(json_schema_extra=immutable("compute"))] = ComputeSpec()
    """Machines of the training."""
    checkpoints: Annotated[CheckpointsSpec, Field(json_schema_extra=immutable("checkpoints"))] = (
        CheckpointsSpec()
    )
    """Checkpoints of the training run."""
    storage: Annotated[StorageSpec, Field(json_schema_extra=immutable("storage"))] = StorageSpec()
    """The four shared volumes."""
    scheduling: SchedulingSpec = SchedulingSpec()
    """Which nodes, and in which queue."""
    run_policy: RunPolicySpec = RunPolicySpec()
    """How long, how often, and whether to run at all."""
    backend: Annotated[BackendSpec, Field(json_schema_extra=immutable("backend"))] = BackendSpec()
    """What runs the training."""
    credentials: CredentialsSpec = CredentialsSpec()
    """Secrets of the stages that fetch."""
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
    """Videos to generate afterwards; items may be appended at any time."""
    prompt_upsampler: Annotated[
        PromptUpsamplerSpec, Field(json_schema_extra=immutable("promptUpsampler"))
    ] = PromptUpsamplerSpec()
    """The model that writes longer prompts."""
    guardrails: Annotated[GuardrailsSpec, Field(json_schema_extra=immutable("guardrails"))] = (
        GuardrailsSpec()
    )
    """What judges prompts and videos."""
    outputs: Annotated[OutputsSpec, Field(json_schema_extra=immutable("outputs"))] = OutputsSpec()
    """What the job leaves."""


class Metadata(BaseModel):
    """The part of the object's metadata that a plan needs; the rest is kept out of sight."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(max_length=MAX_JOB_NAME, pattern=JOB_NAME_PATTERN)]
    """Name of the job, at most 40 characters, a DNS-1035 label."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    """Namespace of the job and of all its objects."""


class PostTrainingJob(ApiModel):
    """Post-trains a Cosmos-Predict1 Video2World model and generates videos with the result."""

    api_version: Literal["cosmos.dev/v1alpha1"]
    kind: Literal["PostTrainingJob"]
    metadata: Metadata
    spec: PostTrainingJobSpec
    """What to do."""
    status: PostTrainingJobStatus | None = None
    """What was done, written by the operator."""

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.metadata.name

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
"""Blocks of a job → their fields that say where files come from."""


def sources(job: PostTrainingJob) -> Iterator[tuple[str, Source]]:
    """(field, source) of everything that a job names a source for."""
    for name, fields in SOURCES.items():
        for field in fields:
            source = getattr(getattr(job.spec, name), field)
            if source is not None:
                yield f"spec.{to_camel(name)}.{to_camel(field)}", source
