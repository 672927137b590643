"""Routes the events of the watches to the jobs that they are about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cosmos_operator.api.base import GROUP, KIND
from cosmos_operator.api.labels import JOB_LABEL, MANAGED_BY, MANAGED_LABEL
from cosmos_operator.kube.kinds import JobKey


@dataclass(frozen=True)
class WatchEvent:
    """The facts of one event of a watch that the operator uses."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    is_deleted: bool = False
    is_finished: bool = False
    """True for a PostTrainingJob that has succeeded or failed."""
    job: str | None = None
    """Name of the PostTrainingJob in the object's label; None if it has no such label."""
    owners: tuple[str, ...] = ()
    """Names of the PostTrainingJobs that own the object."""


def read_event(kind: str, event_type: str | None, body: Mapping[str, Any]) -> WatchEvent | None:
    """Read an event of a watch.

    Args:
        kind: kind of the object.
        event_type: ADDED, MODIFIED or DELETED; None for objects of the first list.
        body: the object.

    Returns:
        The event; None if the object is neither a PostTrainingJob nor managed by this operator.
    """
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    if kind != KIND and labels.get(MANAGED_LABEL) != MANAGED_BY:
        return None
    conditions = (body.get("status") or {}).get("conditions") or ()
    final = [each for each in conditions if each["type"] in ("Succeeded", "Failed")]
    return WatchEvent(
        kind=kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        is_deleted=event_type == "DELETED",
        is_finished=kind == KIND and any(each["status"] == "True" for each in final),
        job=labels.get(JOB_LABEL),
        owners=tuple(
            owner["name"]
            for owner in metadata.get("ownerReferences") or ()
            if owner["kind"] == KIND and owner["apiVersion"].startswith(f"{GROUP}/")
        ),
    )


class Router:
    """Finds the jobs that an event is about."""

    def __init__(self) -> None:
        self._unfinished: dict[str, set[str]] = {}

    def route(self, event: WatchEvent) -> list[JobKey]:
        """The jobs that an event is about.

        A PostTrainingJob itself; otherwise the job in the object's label; otherwise the jobs that own the object;
        otherwise, as for pods of shared stages, all unfinished jobs of the namespace.
        """
        unfinished = self._unfinished.setdefault(event.namespace, set())
        if event.kind == KIND:
            if event.is_deleted or event.is_finished:
                unfinished.discard(event.name)
            else:
                unfinished.add(event.name)
            names: Iterable[str] = (event.name,)
        elif event.job:
            names = (event.job,)
        else:
            names = event.owners or sorted(unfinished)
        return [JobKey(KIND, event.namespace, name) for name in names]
