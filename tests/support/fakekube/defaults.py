"""Defaults that the API server adds to objects of built-in kinds, and their grace periods of deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.fakekube import errors
from support.fakekube.resources import CRDS, Object, Resource

if TYPE_CHECKING:
    from support.fakekube.store import Store

DEFAULT_GRACE_S = 30
FINAL = ("Succeeded", "Failed")


def complete(store: Store, resource: Resource, obj: Object) -> None:
    """Put the defaults of built-in kinds in place, as far as controllers and the kubelet read them.

    Raises:
        ApiError: a pod names a priority class that is absent.
    """
    if resource.key == "jobs.batch":
        _complete_job(obj)
    elif resource.key == "pods":
        _complete_pod(store, resource, obj)
    elif resource.key == "persistentvolumeclaims":
        _complete_claim(store, obj)
    elif resource.key == "namespaces":
        labels = obj["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj["status"] = {"phase": "Active"}
    elif resource.key == CRDS:
        established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}
        accepted = {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts"}
        obj["status"] = {"conditions": [accepted, established]}


def _complete_job(obj: Object) -> None:
    spec: dict[str, Any] = obj["spec"]
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    policy = "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed"
    spec.setdefault("podReplacementPolicy", policy)


def _complete_pod(store: Store, resource: Resource, obj: Object) -> None:
    spec = obj["spec"]
    priority = spec.get("priorityClassName")
    if priority and not store.find("priorityclasses.scheduling.k8s.io", None, priority):
        why = f"no PriorityClass with name {priority} was found"
        meta = obj["metadata"]
        raise errors.forbidden("", resource.plural, meta.get("generateName") or meta["name"], why)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    spec.setdefault("schedulerName", "default-scheduler")
    for container in spec["containers"]:
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
    obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}


def _complete_claim(store: Store, obj: Object) -> None:
    marker = "storageclass.kubernetes.io/is-default-class"
    for storage_class in store.list("storageclasses.storage.k8s.io"):
        if storage_class["metadata"].get("annotations", {}).get(marker) == "true":
            obj["spec"].setdefault("storageClassName", storage_class["metadata"]["name"])
    obj["metadata"].setdefault("finalizers", ["kubernetes.io/pvc-protection"])
    obj["status"] = {"phase": "Pending"}


def grace_seconds(resource: Resource, obj: Object, given: int | None) -> int:
    """Seconds of grace between the deletion of an object and its removal."""
    if resource.key != "pods":
        return 0
    is_running = obj["spec"].get("nodeName") and obj.get("status", {}).get("phase") not in FINAL
    if not is_running:
        return 0
    seconds = obj["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    return int(seconds if given is None else given)


def has_contents(resource: Resource) -> bool:
    """True if a controller deletes the contents of objects of a kind before they are removed."""
    return resource.key == "namespaces"
