"""An InferenceJob with all that it takes from the PostTrainingJob that it names. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosmos_operator.api.base import INFERENCE_KIND
from cosmos_operator.api.check_items import uses_dataset
from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.inferencejob import (
    InferenceJob,
    SamplingComputeSpec,
    SamplingStagesSpec,
)
from cosmos_operator.api.machines import BackendSpec, ComputeSpec, SchedulingSpec, StorageSpec
from cosmos_operator.api.metadata import Metadata
from cosmos_operator.api.pod_template import StagesSpec, Template
from cosmos_operator.api.prompts_and_guards import GuardrailsSpec, PromptUpsamplerSpec
from cosmos_operator.api.source import ClaimFolder, Source
from cosmos_operator.api.v1alpha1 import PostTrainingJob, PostTrainingJobSpec, RunPolicySpec


@dataclass(frozen=True)
class SamplingSpec:
    """Images, resources and placement of the stages of an InferenceJob."""

    compute: ComputeSpec
    storage: StorageSpec
    scheduling: SchedulingSpec
    pod_template: Template | None
    stages: StagesSpec
    run_policy: RunPolicySpec
    credentials: CredentialsSpec
    backend: BackendSpec
    inference: tuple[InferenceItem, ...]
    """The items of the job."""


@dataclass(frozen=True)
class SamplingJob:
    """An InferenceJob that lacks nothing."""

    request: InferenceJob
    """The InferenceJob as it was written."""
    trained_by: PostTrainingJob | None
    """The PostTrainingJob of spec.model.job; None if it names none, or none that is known."""
    spec: SamplingSpec
    prompt_upsampler: PromptUpsamplerSpec
    guardrails: GuardrailsSpec
    kind: str = INFERENCE_KIND

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.request.name

    @property
    def metadata(self) -> Metadata:
        """Name and namespace of the job."""
        return self.request.metadata

    @property
    def queue_name(self) -> str:
        """Name of the Kueue LocalQueue that the job names, or takes over; empty = none."""
        inherits = self.trained_by is not None and self.request.spec.scheduling is None
        inherited = self.trained_by.queue_name if self.trained_by is not None and inherits else ""
        return self.request.queue_name or inherited

    @property
    def reads_dataset(self) -> bool:
        """True if an item, or the report, reads files of the dataset of the PostTrainingJob."""
        request = self.request.spec
        return request.outputs.report or any(map(uses_dataset, request.items))

    @property
    def sources(self) -> tuple[tuple[str, Source], ...]:
        """(field, source) of every source that the job uses."""
        return (*self.request.sources, *self._sources_of_training())

    @property
    def dataset_claim(self) -> ClaimFolder | None:
        """Claim that holds the videos of the dataset; None if there is none, or nothing reads them."""
        if self.trained_by is None or not self.reads_dataset:
            return None
        return self.trained_by.dataset_claim

    def _sources_of_training(self) -> Iterator[tuple[str, Source]]:
        job, own = self.trained_by, self.request.spec
        if job is None:
            return
        replaced = {
            "spec.promptUpsampler.": own.prompt_upsampler,
            "spec.guardrails.": own.guardrails,
            "spec.dataset.": None if self.reads_dataset else True,
        }
        for where, source in job.sources:
            if all(by is None or not where.startswith(block) for block, by in replaced.items()):
                yield f"{job.kind} {job.name}: {where}", source


def complete_job(request: InferenceJob, trained_by: PostTrainingJob | None) -> SamplingJob:
    """Fill in what an InferenceJob leaves out.

    Args:
        request: the InferenceJob.
        trained_by: the PostTrainingJob of its spec.model.job, if it is known.
    """
    own, given = request.spec, None if trained_by is None else trained_by.spec
    policy = own.run_policy
    spec = SamplingSpec(
        compute=_compute(own.compute, given),
        storage=own.storage or (given.storage if given else StorageSpec()),
        scheduling=own.scheduling or (given.scheduling if given else SchedulingSpec()),
        pod_template=own.pod_template or (given.pod_template if given else None),
        stages=_stages(own.stages, given),
        run_policy=RunPolicySpec(
            suspend=policy.suspend,
            activeDeadlineSeconds=policy.active_deadline_seconds,
            retry=policy.retry,
            ttlSecondsAfterFinished=policy.ttl_seconds_after_finished,
        ),
        credentials=own.credentials or (given.credentials if given else CredentialsSpec()),
        backend=BackendSpec(),
        inference=request.items,
    )
    return SamplingJob(
        request,
        trained_by,
        spec,
        own.prompt_upsampler or (given.prompt_upsampler if given else PromptUpsamplerSpec()),
        own.guardrails or (given.guardrails if given else GuardrailsSpec()),
    )


def _stages(own: SamplingStagesSpec | None, given: PostTrainingJobSpec | None) -> StagesSpec:
    """Changes of the pods of single stages."""
    if own is not None:
        return StagesSpec.model_construct(
            **{name: getattr(own, name) for name in type(own).model_fields}
        )
    return StagesSpec() if given is None else given.stages


def _compute(own: SamplingComputeSpec | None, given: PostTrainingJobSpec | None) -> ComputeSpec:
    """Compute of pods on one node each."""
    if own is not None:
        return ComputeSpec(
            image=own.image,
            gpusPerNode=own.gpus,
            gpuResourceName=own.gpu_resource_name,
            resources=own.resources,
            sharedMemory=own.shared_memory,
        )
    if given is None:
        return ComputeSpec()
    return given.compute.model_copy(update={"nodes": 1, "processes_per_node": None})
