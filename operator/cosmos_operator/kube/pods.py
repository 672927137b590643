"""Facts that a pod states: its phase, the end of its worker, the reason for which it does not start. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of, parse_time, seconds_since

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
"""Reasons of a waiting container whose image cannot be pulled."""
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
"""Reasons of a waiting container that cannot be created, such as a missing Secret."""
STUCK_AFTER_S = 60
"""Seconds after its deletionTimestamp from which on a pod counts as stuck on a node that does not answer."""
LOST_REASONS = ("ContainerStatusUnknown", "Unknown")
"""Reasons of a container that was running when its node went away or was restarted: nobody knows how it ended."""
REFUSED = "RefusedByNode"
"""Disruption of a pod of which no container ever ran: the node rejected it, for lack of a device or of room."""
DISRUPTION_REASONS = ("Evicted", "NodeLost", "Preempting", "NodeShutdown", "Terminated")
"""Reasons in a pod's status with which Kubernetes itself ends the pod."""


@dataclass(frozen=True)
class Ending:
    """The end of the worker in a pod."""

    exit_code: int
    reason: str
    """Reason in the worker's termination message, otherwise that of the container runtime or the pod."""
    message: str
    step: int | None = None
    checkpoint: int | None = None
    node: str = ""
    result: Manifest | None = None
    """Result of a stage that succeeded."""
    disruption: str = ""
    """Reason for which Kubernetes ended the pod: that of its DisruptionTarget condition or of the pod itself."""
    finish_time: str | None = None
    """Time at which the worker ended."""


def phase_of(pod: Manifest) -> str:
    """Phase of a pod: Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_over(pod: Manifest) -> bool:
    """True once all containers have ended for good."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_terminating(pod: Manifest) -> bool:
    """True while a deleted pod still has its grace period to end its work."""
    return "deletionTimestamp" in pod["metadata"] and not is_over(pod)


def is_stuck(pod: Manifest, now: datetime) -> bool:
    """True if a pod should have ended by its deletionTimestamp, long ago, and has not."""
    due = pod["metadata"].get("deletionTimestamp")
    return due is not None and not is_over(pod) and seconds_since(due, now) > STUCK_AFTER_S


def deleted_at(pod: Manifest) -> datetime | None:
    """Time at which the pod was deleted, a grace period before its deletionTimestamp; None if nobody deleted it."""
    metadata = pod["metadata"]
    due = metadata.get("deletionTimestamp")
    if due is None:
        return None
    return parse_time(due) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def disruption_of(pod: Manifest) -> str:
    """Reason for which Kubernetes takes the pod away; empty if it does not."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("reason", "DisruptionTarget"))
    reason = str(status.get("reason", ""))
    return reason if reason in DISRUPTION_REASONS else ""


def ending_of(pod: Manifest) -> Ending | None:
    """The end of a pod's worker; None if it has not ended, or left no trace."""
    node = str(pod.get("spec", {}).get("nodeName", ""))
    disruption = disruption_of(pod)
    for status in _worker_statuses(pod):
        ended = status.get("state", {}).get("terminated")
        if ended is not None:
            if "deletionTimestamp" not in pod["metadata"] and ended.get("reason") in LOST_REASONS:
                disruption = disruption or str(ended["reason"])
            found = _read_ending(ended, node, disruption)
            return replace(found, finish_time=ended.get("finishedAt"))
    if phase_of(pod) == "Failed":
        if (failed := _failed_init_container(pod)) is not None:
            return _read_ending(failed, node, disruption)
        status = pod.get("status", {})
        reason = disruption or str(status.get("reason", "Failed"))
        if not status.get("containerStatuses"):
            disruption = disruption or REFUSED
        return Ending(137, reason, str(status.get("message", "")), node=node, disruption=disruption)
    return None


def _failed_init_container(pod: Manifest) -> Manifest | None:
    """State ``terminated`` of an init container that failed, such as one that waited for another pod in vain."""
    for status in pod.get("status", {}).get("initContainerStatuses", ()):
        ended: Manifest | None = status.get("state", {}).get("terminated")
        if ended is not None and ended.get("exitCode", 0) != 0:
            return ended
    return None


def _worker_statuses(pod: Manifest) -> list[Manifest]:
    names = {container["name"] for container in pod["spec"].get("containers", ())}
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return [status for status in statuses if status["name"] in names]


def _read_ending(ended: Manifest, node: str, disruption: str) -> Ending:
    exit_code, reason = int(ended.get("exitCode", 0)), str(ended.get("reason", ""))
    text = str(ended.get("message", ""))
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        last = text.strip().rsplit("\n", 1)[-1]
        return Ending(exit_code, reason, last, node=node, disruption=disruption)
    if reason != "OOMKilled":
        reason = str(said.get("reason", reason))
    return Ending(
        exit_code,
        reason,
        str(said.get("message", "")),
        step=_number(said.get("step")),
        checkpoint=_number(said.get("checkpoint")),
        node=node or str(said.get("node", "")),
        result=said.get("result") if isinstance(said.get("result"), dict) else None,
        disruption=disruption,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Obstacle:
    """The reason for which a pod does not start, in one word and in a sentence with what to do."""

    reason: str
    message: str


def obstacle_of(pod: Manifest) -> Obstacle | None:
    """The reason for which a pod does not start; None if it has started, or states no reason."""
    if phase_of(pod) != "Pending":
        return None
    statuses = pod.get("status", {})
    for status in (
        *statuses.get("initContainerStatuses", ()),
        *statuses.get("containerStatuses", ()),
    ):
        waiting = status.get("state", {}).get("waiting") or {}
        reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
        if reason in IMAGE_REASONS:
            return Obstacle(
                "ImagePullFailed",
                f"pod {name_of(pod)}: image {status.get('image')!r} cannot be pulled: {message or reason}; "
                "set spec.compute.image or the chart's worker image to one that the nodes can pull",
            )
        if reason in CONFIG_REASONS:
            return Obstacle(
                "ContainerNotCreated",
                f"pod {name_of(pod)}: the container cannot be created: {message or reason}; create what is missing in "
                "the job's namespace",
            )
    for condition in statuses.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Obstacle(
                "Unschedulable", f"pod {name_of(pod)}: {condition.get('message', 'no node fits')}"
            )
    return None


def first_obstacle(pods: Iterable[Manifest]) -> Obstacle | None:
    """The obstacle of the first pod that states one."""
    return next((found for pod in pods if (found := obstacle_of(pod)) is not None), None)
