"""Workloads that nobody carries out: their controller is away, or somebody else keeps them suspended. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import (
    format_duration,
    has_been_noticed,
    has_made_pods,
    name_of,
    seconds_since,
)
from cosmos_operator.kube.pods import Obstacle, phase_of

PODLESS_S = 300
"""Seconds after which a workload that its controller has noticed should have had a pod."""
DEFAULT_SCHEDULER = "default-scheduler"
DEFAULT_QUEUE = "default"
"""Name of the LocalQueue that Kueue gives to workloads that name none."""
REMEDIES = {
    "PyTorchJob": "start the Kubeflow training-operator, or set spec.backend.type: Job",
    "TrainJob": "start Kubeflow Trainer, or set spec.backend.type: Job",
    "Job": "look at the kube-controller-manager of the cluster",
}
"""Kind of workload → what to do if nothing carries it out."""


def is_unattended(pass_: Pass, workload: Manifest) -> bool:
    """True if no controller has taken notice of a workload that may run, for the time in which one does."""
    age_s = seconds_since(workload["metadata"].get("creationTimestamp"), pass_.now)
    return not has_been_noticed(workload) and age_s >= pass_.settings.workload_grace_seconds


def unattended_obstacle(pass_: Pass, workload: Manifest) -> Obstacle | None:
    """The reason for which a workload that may run has no pods; None if its controller has taken notice of it."""
    if not is_unattended(pass_, workload):
        return None
    kind = workload["kind"]
    age = format_duration(seconds_since(workload["metadata"]["creationTimestamp"], pass_.now))
    return Obstacle(
        "Unattended",
        f"nothing has carried out {kind} {name_of(workload)} for {age}; {REMEDIES[kind]}",
    )


def podless_obstacle(pass_: Pass, workload: Manifest) -> Obstacle | None:
    """The reason for which a workload that its controller has noticed never had a pod, and nothing says why."""
    age_s = seconds_since(workload["metadata"].get("creationTimestamp"), pass_.now)
    if workload["kind"] == "Job" or has_made_pods(workload) or age_s < PODLESS_S:
        return None
    kind, name = workload["kind"], name_of(workload)
    helper = " and at the JobSet of that name, whose controller may be missing" * (
        kind == "TrainJob"
    )
    return Obstacle(
        "Unattended",
        f"{kind} {name} was noticed by its controller, but has had no pod for {format_duration(age_s)}; look at "
        f"kubectl describe {kind.lower()} {name}{helper}, or set spec.backend.type: Job",
    )


def unscheduled_obstacle(pass_: Pass, pods: Iterable[Manifest]) -> Obstacle | None:
    """The reason for which a pod waits that no scheduler has looked at; None if there is no such pod."""
    for pod in pods:
        age_s = seconds_since(pod["metadata"].get("creationTimestamp"), pass_.now)
        spec, status = pod["spec"], pod.get("status", {})
        was_looked_at = spec.get("nodeName") or any(
            one["type"] == "PodScheduled" for one in status.get("conditions") or ()
        )
        if (
            was_looked_at
            or phase_of(pod) != "Pending"
            or age_s < pass_.settings.workload_grace_seconds
        ):
            continue
        scheduler = spec.get("schedulerName") or DEFAULT_SCHEDULER
        return Obstacle(
            "Unattended",
            f"pod {name_of(pod)}: no scheduler has looked at it for {format_duration(age_s)}; start the scheduler "
            f"{scheduler!r}, or correct schedulerName in the pod template of the job or of the chart",
        )
    return None


def holding_message(pass_: Pass, workload: Manifest) -> str:
    """The message on a workload that names no queue, and that somebody else keeps suspended."""
    kind, name = workload["kind"], name_of(workload)
    if "LocalQueue" not in pass_.observed.served:
        return (
            f"something other than this operator keeps {kind} {name} suspended; find out what has set its suspend "
            "field, and set it to false"
        )
    return (
        f"Kueue keeps {kind} {name} suspended, although it names no queue: it manages all workloads "
        "(manageJobsWithoutQueueName in its configuration). Leave this namespace out of its "
        f"managedJobsNamespaceSelector, or create a LocalQueue {DEFAULT_QUEUE!r} here, which it then uses; after that "
        f"delete {kind} {name}, which is created again"
    )
