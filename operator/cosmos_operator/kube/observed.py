"""The state of the cluster around one job, as one pass has read it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosmos_operator.kube.kinds import Manifest, ObjectKey
from cosmos_operator.kube.objects import labels_of


@dataclass(frozen=True)
class Observed:
    """Everything in the cluster that concerns one job, read anew for each pass."""

    objects: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    """Workloads, ConfigMaps and Services of the job and of its shared stages; all claims of the namespace."""
    pods: tuple[Manifest, ...] = ()
    """Pods of these workloads."""
    departed_pods: tuple[Manifest, ...] = ()
    """Pods of the job that had ended when they were deleted, a short while ago."""
    claim_names: tuple[str, ...] = ()
    """Names of all claims of the namespace, for messages."""
    storage_classes: Mapping[str, Manifest] | None = field(default_factory=dict)
    """Storage classes of claims that are not bound; None = the operator may not read them."""
    nodes: tuple[Manifest, ...] | None = None
    """Nodes of the cluster; None = the operator may not read them, or the job uses no GPUs."""
    num_nodes: int | None = None
    """Number of the cluster's nodes that may run jobs; None = not known, or it makes no difference."""
    served: frozenset[str] = frozenset()
    """The ``OPTIONAL_KINDS`` that the API server has."""
    unmanaged_kinds: frozenset[str] = frozenset()
    """Kinds of workload that the job's queue does not manage, so that they would wait in it for ever."""
    other_jobs: tuple[Manifest, ...] = ()
    """PostTrainingJobs of the namespace, for a job that has not been accepted yet."""
    queue_names: tuple[str, ...] = ()
    """LocalQueues of the namespace."""
    queue_workloads: tuple[Manifest, ...] = ()
    """Kueue's Workload objects of the namespace."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Name of a pod → last lines of its log."""
    warnings: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Object that does not start → message of its latest warning event."""
    starting_problem: str = ""
    """Reason for which the training cannot begin with the checkpoint of the PostTrainingJob that it names; empty if it
    can, or has begun, or that job is not there."""
    refusals: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Object → reason for which the API server refused to create it, in the last pass."""

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object by kind and name; None if it is absent."""
        return self.objects.get((kind, name))

    def pods_with(self, labels: Mapping[str, str]) -> tuple[Manifest, ...]:
        """Pods that have all of these labels."""
        return tuple(pod for pod in self.pods if labels.items() <= labels_of(pod).items())
