"""The part that jobs of all kinds have in common: all that the operator reads to carry out their stages."""

from __future__ import annotations

from typing import Protocol

from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.machines import BackendSpec, ComputeSpec, SchedulingSpec, StorageSpec
from cosmos_operator.api.metadata import Metadata
from cosmos_operator.api.pod_template import StagesSpec, Template
from cosmos_operator.api.source import ClaimFolder, Source
from cosmos_operator.api.v1alpha1 import RunPolicySpec


class JobSpec(Protocol):
    """The blocks of a specification that say where and how stages run."""

    @property
    def compute(self) -> ComputeSpec:
        """Nodes, GPUs, image and resources of the pods."""

    @property
    def storage(self) -> StorageSpec:
        """Volumes."""

    @property
    def scheduling(self) -> SchedulingSpec:
        """Nodes, priority and queue of the pods."""

    @property
    def pod_template(self) -> Template | None:
        """Changes of the pods of all stages."""

    @property
    def stages(self) -> StagesSpec:
        """Changes of the pods of single stages."""

    @property
    def run_policy(self) -> RunPolicySpec:
        """Deadlines, retries, suspension and clean-up."""

    @property
    def backend(self) -> BackendSpec:
        """Kind of Kubernetes object that runs the training."""

    @property
    def inference(self) -> tuple[InferenceItem, ...]:
        """Sets of videos to generate."""

    @property
    def credentials(self) -> CredentialsSpec:
        """Secrets for the stages that download."""


class Job(Protocol):
    """A PostTrainingJob, or an InferenceJob with all that it takes from others."""

    @property
    def kind(self) -> str:
        """Kind of the resource."""

    @property
    def name(self) -> str:
        """Name of the job."""

    @property
    def metadata(self) -> Metadata:
        """Name and namespace of the job."""

    @property
    def spec(self) -> JobSpec:
        """Images, resources and placement of its stages."""

    @property
    def queue_name(self) -> str:
        """Name of the Kueue LocalQueue that the job names; empty = none."""

    @property
    def sources(self) -> tuple[tuple[str, Source], ...]:
        """(field, source) of every source that the job names."""

    @property
    def dataset_claim(self) -> ClaimFolder | None:
        """Claim that holds the videos of the dataset; None if there is none."""
