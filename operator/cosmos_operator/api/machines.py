"""Machines, volumes, nodes and queue of a PostTrainingJob."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

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
    """Compute resources of one pod other than its GPUs."""

    requests: Quantities = Field(default_factory=dict)
    """Resources that the pod is guaranteed, such as cpu: 8 and memory: 64Gi."""
    limits: Quantities = Field(default_factory=dict)
    """Resources that the pod cannot exceed; its memory includes compute.sharedMemory."""


class PreparationSpec(ApiModel):
    """GPUs of the stages before the training."""

    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """Number of GPUs of embed-text, which uses one of them, and of cache-latents, which runs a process on each.
    Omitted: 1 if the training has GPUs, otherwise 0."""


class ComputeSpec(ApiModel):
    """Nodes, GPUs, image and resources of the pods."""

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
    """Image of the worker in all pods, best with its digest. Empty: that of the installation."""
    nodes: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of nodes of the training, with one pod on each."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of GPUs of each training pod. With 0 the training runs on the CPU."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Number of training processes in each pod. Omitted: one for each GPU, or 1 on the CPU."""
    gpu_resource_name: Annotated[str, Field(min_length=1, max_length=253)] = "nvidia.com/gpu"
    """Name of the extended resource under which the nodes offer their GPUs."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of each pod of the training and of the inference items; those of other stages are given in
    spec.stages."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm in the pods of the training, and of inference items with several processes; it counts
    towards the memory limit."""
    preparation: PreparationSpec = PreparationSpec()
    """GPUs of the stages before the training."""

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
    """A persistent volume claim to create. It outlives the job."""

    size: Quantity
    """Capacity of the claim, such as 500Gi."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access mode of the claim. ReadWriteOnce is enough for jobs on one node only."""
    storage_class_name: OptionalObjectName = ""
    """Storage class of the claim. Empty: the default of the cluster."""


class VolumeSpec(ApiModel):
    """A volume of the job: a folder in a persistent volume claim."""

    claim_name: ObjectName = "cosmos"
    """Name of the claim, in the job's namespace."""
    sub_path: RelativeFolder | None = None
    """Folder inside the claim. Omitted: the volume's name, such as models. Empty: the root of the claim."""
    create: NewClaim | None = None
    """Properties of the claim that is created if there is none of that name. Omitted: the claim must exist."""


class StorageSpec(ApiModel):
    """The four volumes of a job. Jobs that name the same claims share models, datasets and embeddings."""

    models: VolumeSpec = VolumeSpec()
    """Volume of downloaded weights, tokenizers and text encoders."""
    datasets: VolumeSpec = VolumeSpec()
    """Volume of downloaded datasets and of the indexes of their windows."""
    embeddings: VolumeSpec = VolumeSpec()
    """Volume of text embeddings and cached latents."""
    checkpoints: VolumeSpec = VolumeSpec()
    """Volume of training runs, published models, generated videos and reports."""


class Toleration(ApiModel):
    """A taint of nodes that the pods tolerate."""

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
    """Key of the taint. Empty, with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Comparison of the taint's value. Equal: it must be that of the field value. Exists: any value."""
    value: Annotated[str, Field(max_length=63)] = ""
    """Value of the taint, for operator Equal."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint. Empty: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = None
    """Seconds for which the pods stay on a node that gets the taint, for effect NoExecute. With the key
    node.kubernetes.io/unreachable it is the time that a lost node is waited for, 300 seconds without such a
    toleration. Omitted: for ever."""

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
    """Nodes, priority and queue of the training and of other stages with GPUs, from their next pods on."""

    queue_name: Annotated[OptionalObjectName, Field(json_schema_extra=immutable("queueName"))] = ""
    """Name of the Kueue LocalQueue in which the training, and every stage that uses GPUs, waits for quota. Empty:
    no queue."""
    priority_class_name: OptionalObjectName = ""
    """Priority class of the pods. Empty: the default of the cluster."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have to run the pods."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints of nodes that the pods tolerate."""
