"""The worker's container in a pod, among those that other software puts there, such as a service mesh's proxy. Pure.

Only the worker's container says how a stage ended: a pod's phase, and the exit codes in it, may be those of others.
"""

from __future__ import annotations

from cosmos_operator.kube.kinds import Manifest

WORKER_NAMES = ("worker", "pytorch", "node")
"""Names of the worker's container in the pods of a Job, a PyTorchJob and a TrainJob."""
DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""Annotation with which our pods name the worker's container, for kubectl logs too."""


def worker_name(pod: Manifest) -> str:
    """Name of the worker's container in a pod."""
    names = [container["name"] for container in pod["spec"].get("containers", ())]
    stated = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if stated in WORKER_NAMES and stated in names:
        return str(stated)
    return next((name for name in WORKER_NAMES if name in names), WORKER_NAMES[0])


def worker_status(pod: Manifest) -> Manifest | None:
    """Status of the worker's container; None before the node has reported one."""
    name = worker_name(pod)
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status["name"] == name), None)


def worker_end(pod: Manifest) -> Manifest | None:
    """State ``terminated`` of the worker's container; None while it has not ended."""
    ended: Manifest | None = ((worker_status(pod) or {}).get("state") or {}).get("terminated")
    return ended


def has_started(pod: Manifest) -> bool:
    """True once the worker's container runs or has ended, whatever the others in the pod do."""
    status = worker_status(pod)
    if status is None:
        return pod.get("status", {}).get("phase") not in (None, "Pending")
    state = status.get("state") or {}
    return "running" in state or "terminated" in state


def kept_alive_by(pod: Manifest) -> tuple[str, ...]:
    """Names of the containers that have not ended although the worker has; empty if none keeps the pod alive.

    Native sidecars (init containers that restart) do not count: Kubernetes ends them with the worker.
    """
    status = pod.get("status", {})
    if worker_end(pod) is None or status.get("phase") in ("Succeeded", "Failed"):
        return ()
    ended = {
        one["name"]
        for one in status.get("containerStatuses") or ()
        if "terminated" in (one.get("state") or {})
    }
    names = (str(container["name"]) for container in pod["spec"].get("containers", ()))
    return tuple(name for name in names if name not in ended)


def memory_limit(pod: Manifest) -> str:
    """Memory limit of the worker's container, such as 512Mi; empty if it has none."""
    name = worker_name(pod)
    for container in pod["spec"].get("containers", ()):
        if container["name"] == name:
            return str((container.get("resources") or {}).get("limits", {}).get("memory", ""))
    return ""


def failed_init_container(pod: Manifest) -> Manifest | None:
    """Status of an init container that has failed; None if none has. Native sidecars do not count."""
    restarting = {
        container["name"]
        for container in pod["spec"].get("initContainers", ())
        if container.get("restartPolicy") == "Always"
    }
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated")
        if ended and ended.get("exitCode", 0) != 0 and status["name"] not in restarting:
            found: Manifest = status
            return found
    return None
