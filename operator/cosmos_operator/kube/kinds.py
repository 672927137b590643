"""The kinds of Kubernetes object that the operator reads or writes, and their paths on the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from cosmos_operator.api.base import (
    GROUP,
    INFERENCE_KIND,
    INFERENCE_PLURAL,
    KIND,
    PLURAL,
    VERSION,
)

Manifest = dict[str, Any]
"""A Kubernetes object, or a part of one, as JSON values."""
ObjectKey = tuple[str, str]
"""Kind and name of an object, within a namespace."""


class JobKey(NamedTuple):
    """Identity of a resource for which the operator runs stages, such as a PostTrainingJob."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """The key as log lines show it."""
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Resource:
    """The part of an API server's path that belongs to a kind."""

    group: str
    """API group; empty for the core group."""
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or the version alone in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


KINDS: dict[str, Resource] = {
    KIND: Resource(GROUP, VERSION, PLURAL),
    INFERENCE_KIND: Resource(GROUP, VERSION, INFERENCE_PLURAL),
    "Job": Resource("batch", "v1", "jobs"),
    "PyTorchJob": Resource("kubeflow.org", "v1", "pytorchjobs"),
    "TrainJob": Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs"),
    "TrainingRuntime": Resource("trainer.kubeflow.org", "v1alpha1", "trainingruntimes"),
    "Pod": Resource("", "v1", "pods"),
    "Service": Resource("", "v1", "services"),
    "ConfigMap": Resource("", "v1", "configmaps"),
    "PersistentVolumeClaim": Resource("", "v1", "persistentvolumeclaims"),
    "StorageClass": Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False),
    "Node": Resource("", "v1", "nodes", namespaced=False),
    "Event": Resource("", "v1", "events"),
    "LocalQueue": Resource("kueue.x-k8s.io", "v1beta2", "localqueues"),
    "Workload": Resource("kueue.x-k8s.io", "v1beta2", "workloads"),
    "Lease": Resource("coordination.k8s.io", "v1", "leases"),
}

JOB_KINDS = (KIND, INFERENCE_KIND)
"""Kinds for which the operator runs stages; kopf watches them."""
OPTIONAL_KINDS = ("PyTorchJob", "TrainJob", "LocalQueue", "Workload")
"""Kinds that another operator installs; the API server may lack them."""
WORKLOAD_KINDS = ("Job", "PyTorchJob", "TrainJob")
"""Kinds whose controllers start pods for us."""
