"""What a pass saw of the cluster. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]
ObjectKey = tuple[str, str]
"""Kind and name, within the job's namespace."""


@dataclass(frozen=True)
class Observed:
    """Everything around one job, read anew for each pass."""

    objects: Mapping[ObjectKey, Manifest] = field(default_factory=dict)
    """Workloads, ConfigMaps and Services of the job and of its shared stages; claims that it names."""
    pods: tuple[Manifest, ...] = ()
    """Pods of these workloads."""
    claim_names: tuple[str, ...] = ()
    """All claims of the namespace, for messages."""
    storage_classes: Mapping[str, Manifest] | None = field(default_factory=dict)
    """Classes of claims that are not bound; None = the operator may not read them."""
    nodes: tuple[Manifest, ...] | None = None
    """None = the operator may not read nodes."""
    served: frozenset[str] = frozenset()
    """Optional kinds that the API server has."""
    queue_names: tuple[str, ...] = ()
    """LocalQueues of the namespace."""
    queue_workloads: tuple[Manifest, ...] = ()
    """Workloads of Kueue in the namespace."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Pod → last lines of its log."""
    warnings: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Object → its latest warning event, of objects that make no headway."""
    refusals: Mapping[ObjectKey, str] = field(default_factory=dict)
    """Object → why the API server refused to create it, in this or an earlier pass."""

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object by kind and name."""
        return self.objects.get((kind, name))

    def pods_with(self, labels: Mapping[str, str]) -> tuple[Manifest, ...]:
        """Pods that have all of these labels."""
        return tuple(
            pod for pod in self.pods if labels.items() <= pod["metadata"].get("labels", {}).items()
        )
