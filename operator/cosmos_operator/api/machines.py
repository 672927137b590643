"""Where a PostTrainingJob runs: its machines, its volumes, its place in the queue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import Self

from cosmos_operator.api.base import (
    ApiModel,
    ObjectName,
    OptionalObjectName,
    Quantity,
    RelativeFolder,
    immutable,
    rules,
)

Quantities = Annotated[dict[Annotated[str, Field(max_length=253)], Quantity], Field(max_length=16)]
Labels = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]],
    Field(max_length=16),
]


class ResourcesSpec(ApiModel):
    """Compute resources of one pod, GPUs apart."""

    requests: Quantities = Field(default_factory=dict)
    """What a pod is guaranteed, such as cpu and memory."""
    limits: Quantities = Field(default_factory=dict)
    """What a pod cannot exceed; memory includes compute.sharedMemory."""


class PreparationSpec(ApiModel):
    """Compute of the stages around the training."""

    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """GPUs of embed-text, which uses one, and of cache-latents, which runs a process on each; omitted = 1 if the
    training has GPUs, otherwise 0."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of each stage other than train and generate."""


class ComputeSpec(ApiModel):
    """Machines of the training."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.gpusPerNode == 0 || !has(self.processesPerNode)"
                " || self.processesPerNode == self.gpusPerNode",
                "processesPerNode must equal gpusPerNode; omit it where there are GPUs",
            )
        )
    )

    image: Annotated[str, Field(max_length=512)] = ""
    """Image of the worker, best with a digest; empty = the installation's default."""
    nodes: Annotated[int, Field(ge=1, le=256)] = 1
    """Pods of the training, one a node."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs of each node; 0 = train on the CPU."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training processes of each node; omitted = one for each GPU, or 1 on the CPU."""
    gpu_resource_name: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """Name under which the nodes offer their GPUs."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of each training pod."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm, counted in the memory limit."""
    preparation: PreparationSpec = PreparationSpec()
    """Compute of the stages around the training."""

    @model_validator(mode="after")
    def _one_process_for_each_gpu(self) -> Self:
        if self.gpus_per_node and self.processes_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"processesPerNode: {self.processes_per_node} is not gpusPerNode {self.gpus_per_node}; "
                "omit it where there are GPUs"
            )
        return self

    @property
    def num_processes_per_node(self) -> int:
        """Training processes of each node."""
        return self.processes_per_node or self.gpus_per_node or 1

    @property
    def preparation_gpus(self) -> int:
        """GPUs of embed-text and cache-latents."""
        gpus = self.preparation.gpus
        return min(1, self.gpus_per_node) if gpus is None else gpus


class NewClaim(ApiModel):
    """A claim to create if there is none of that name; it outlives the job."""

    size: Quantity
    """Capacity, such as 500Gi."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """ReadWriteOnce serves jobs on one node only."""
    storage_class_name: OptionalObjectName = ""
    """Storage class; empty = the cluster's default."""


class VolumeSpec(ApiModel):
    """A folder in a claim."""

    claim_name: ObjectName = "cosmos"
    """Claim in the job's namespace."""
    sub_path: RelativeFolder | None = None
    """Folder inside the claim; omitted = the volume's name (models, datasets, ...); empty = the claim's root."""
    create: NewClaim | None = None
    """Create the claim if there is none of that name; omitted = it must exist."""


class StorageSpec(ApiModel):
    """The four shared volumes. Jobs that name the same claims share their datasets, embeddings and models."""

    models: VolumeSpec = VolumeSpec()
    """Weights, tokenizers, text encoders."""
    datasets: VolumeSpec = VolumeSpec()
    """Fetched datasets and their indexes."""
    embeddings: VolumeSpec = VolumeSpec()
    """Text embeddings and cached latents."""
    checkpoints: VolumeSpec = VolumeSpec()
    """Training runs, published models, generated videos, reports."""


class Toleration(ApiModel):
    """A node taint that the pods accept."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.tolerationSeconds) || self.effect == 'NoExecute'",
                "tolerationSeconds needs effect NoExecute",
            ),
            ("self.key != '' || self.operator == 'Exists'", "give a key, or operator Exists"),
            (
                "self.value == '' || self.operator == 'Equal'",
                "operator Exists is for any value; remove value, or use Equal",
            ),
        )
    )

    key: Annotated[str, Field(max_length=317)] = ""
    """Taint key; empty with operator Exists = every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists: any value."""
    value: Annotated[str, Field(max_length=63)] = ""
    """Taint value (operator Equal)."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Taint effect; empty = every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """Seconds for which the pods stay on a node that gets the taint (effect NoExecute); omitted = for ever. With key
    node.kubernetes.io/unreachable, how long a lost node is waited for; without such a toleration it is 300."""

    @model_validator(mode="after")
    def _is_one_of_kubernetes(self) -> Self:
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError(
                f"tolerationSeconds: {self.toleration_seconds} needs effect NoExecute (got {self.effect!r})"
            )
        if not self.key and self.operator != "Exists":
            raise ValueError("key: empty is for operator Exists, which means every taint; give one")
        if self.value and self.operator == "Exists":
            raise ValueError(
                f"value: {self.value!r} is for operator Equal; Exists is for any value"
            )
        return self


class SchedulingSpec(ApiModel):
    """Which nodes, and in which queue. Changes count from the next pod on."""

    queue_name: Annotated[OptionalObjectName, Field(json_schema_extra=immutable("queueName"))] = ""
    """Kueue LocalQueue of everything that uses GPUs and of the training; empty = no queue."""
    priority_class_name: OptionalObjectName = ""
    """Priority class of the pods; empty = the cluster's default."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Node taints that the pods accept."""
