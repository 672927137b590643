"""Machines, backend, volumes, nodes and queue of a PostTrainingJob."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cosmos_operator.api.base import (
    KEY_OR_EMPTY_PATTERN,
    ApiModel,
    Labels,
    LabelValue,
    ObjectName,
    ObjectNameOrEmpty,
    RelativeFolder,
    rules,
    unchanged,
)
from cosmos_operator.api.image import Image
from cosmos_operator.api.quantities import (
    EXTENDED_NAME_PATTERN,
    RESOURCE_RULES,
    Quantities,
    Quantity,
    quantity_value,
    resource_problems,
)


class ResourcesSpec(ApiModel):
    """Compute resources of one pod other than its GPUs."""

    model_config = ConfigDict(json_schema_extra=RESOURCE_RULES)

    requests: Quantities = Field(default_factory=dict)
    """Resources that the pod is guaranteed, such as cpu: 8 and memory: 64Gi."""
    limits: Quantities = Field(default_factory=dict)
    """Resources that the pod cannot exceed; its memory includes compute.sharedMemory."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if problems := resource_problems(self.requests, self.limits):
            raise ValueError("\n".join(problems))
        return self


class PreparationSpec(ApiModel):
    """GPUs of the stages before the training."""

    gpus: Annotated[int, Field(ge=0, le=64)] | None = None
    """Number of GPUs of embed-text, which uses one of them, and of cache-latents, which runs a process on each.
    Omitted: 1 if the training has GPUs, otherwise 0."""


class ComputeSpec(ApiModel):
    """Nodes, GPUs, image and resources of the pods. Changes apply to pods that are created afterwards."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.gpusPerNode == 0 || !has(self.processesPerNode)"
                " || self.processesPerNode == self.gpusPerNode",
                "processesPerNode must equal gpusPerNode; omit it where there are GPUs",
            ),
            (
                "!has(self.resources)"
                " || !(has(self.resources.requests) && self.gpuResourceName in self.resources.requests)"
                " && !(has(self.resources.limits) && self.gpuResourceName in self.resources.limits)",
                "the resource of gpuResourceName stands in resources too; give gpusPerNode alone",
            ),
        )
    )

    image: Image | None = None
    """Image of the worker in all pods, best with its digest. Omitted: that of the installation."""
    nodes: Annotated[int, Field(ge=1, le=256)] = 1
    """Number of nodes of the training, with one pod on each."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of GPUs of each training pod. With 0 the training runs on the CPU."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Number of training processes in each pod. Omitted: one for each GPU, or 1 on the CPU."""
    gpu_resource_name: Annotated[str, Field(max_length=253, pattern=EXTENDED_NAME_PATTERN)] = (
        "nvidia.com/gpu"
    )
    """Name of the extended resource under which the nodes offer their GPUs, as DOMAIN/NAME."""
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
        name = self.gpu_resource_name
        if name in self.resources.requests or name in self.resources.limits:
            raise ValueError(
                f"resources: {name} is the resource of gpuResourceName; remove it, and give gpusPerNode alone"
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


class BackendSpec(ApiModel):
    """The kind of Kubernetes object that runs the training."""

    type: Literal["Auto", "PyTorchJob", "Job", "TrainJob"] = "Auto"
    """Kind of the object. PyTorchJob: of the Kubeflow training-operator. TrainJob: of Kubeflow Trainer 2.2 or
    later, with a queue Kueue 0.17 or later. Job: an indexed Job of Kubernetes. Auto: PyTorchJob where it is
    installed, otherwise Job."""


class NewClaim(ApiModel):
    """A persistent volume claim to create. It outlives the job."""

    size: Annotated[
        Quantity,
        Field(
            json_schema_extra=rules(
                (
                    "quantity(string(self)).compareTo(quantity('0')) > 0",
                    "a claim needs a size above 0, such as 500Gi",
                )
            )
        ),
    ]
    """Capacity of the claim, such as 500Gi."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Access mode of the claim. ReadWriteOnce is enough for jobs on one node only."""
    storage_class_name: ObjectNameOrEmpty | None = None
    """Storage class of the claim. Omitted: the default of the cluster. Empty: none, for a volume that stands ready
    without a class."""

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if quantity_value(self.size) <= 0:
            raise ValueError(f"size: {self.size} leaves no room; give one such as 500Gi")
        return self


class VolumeSpec(ApiModel):
    """A volume of the job: a folder in a persistent volume claim."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"{unchanged('claimName')} && {unchanged('subPath')}",
                "the claim and the folder of a volume cannot be changed, because the job's files are there; create "
                "another PostTrainingJob, which prepares its files anew",
            )
        )
    )

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
    verify: Literal["Sampled", "Full"] = "Sampled"
    """Way in which a stage compares the models, embeddings and latents that it reads with the digests that were
    recorded when they were made. Sampled: sizes, samples of weights, and the checksum of each embedding and latent
    when it is read. Full: before it begins, the stage also reads all of every file, which finds a single flipped
    bit."""


class Toleration(ApiModel):
    """A taint of nodes that the pods tolerate."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds needs effect NoExecute",
            ),
            (
                "(has(self.key) && self.key != '') || self.operator == 'Exists'",
                "give a key, or operator Exists",
            ),
            (
                "!has(self.value) || self.value == '' || self.operator == 'Equal'",
                "operator Exists is for any value; remove value, or use Equal",
            ),
        )
    )

    key: Annotated[str, Field(max_length=317, pattern=KEY_OR_EMPTY_PATTERN)] | None = None
    """Key of the taint. Omitted, with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Comparison of the taint's value. Equal: it must be that of the field value. Exists: any value."""
    value: LabelValue | None = None
    """Value of the taint, for operator Equal. Omitted: the taint has none."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Omitted: every effect."""
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
            raise ValueError("key: none is for operator Exists, which means every taint; give one")
        if self.value and self.operator == "Exists":
            raise ValueError(
                f"value: {self.value!r} is for operator Equal; Exists is for any value"
            )
        return self


class SchedulingSpec(ApiModel):
    """Nodes, priority and queue of the training and of other stages with GPUs, from their next pods on."""

    queue_name: ObjectName | None = None
    """Name of the Kueue LocalQueue in which the training, and every stage that uses GPUs, waits for quota. Omitted:
    no queue."""
    priority_class_name: ObjectName | None = None
    """Priority class of the pods. Omitted: the default of the cluster."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have to run the pods."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints of nodes that the pods tolerate."""
