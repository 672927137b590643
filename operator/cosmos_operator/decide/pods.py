"""What a pod says: whether it runs, how its worker ended, why it does not start. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cosmos_operator.decide.times import parse_time, seconds_since

Manifest = dict[str, Any]

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
STUCK_AFTER_S = 60
"""A pod that should have ended so long ago is on a node that does not answer; it is no longer waited for."""
LOST_REASONS = ("ContainerStatusUnknown", "Unknown")
"""The container was there before its node went away or was started anew, and nobody knows how it ended."""
REFUSED = "RefusedByNode"
"""No container ever ran: the node would not have the pod, for want of a device or of room."""
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True)
class Ending:
    """How the worker in a pod ended."""

    exit_code: int
    reason: str
    """Of the worker's termination message, otherwise of the container runtime or the pod."""
    message: str
    step: int | None = None
    checkpoint: int | None = None
    node: str = ""
    result: Manifest | None = None
    """Of a stage that succeeded."""
    disruption: str = ""
    """Why Kubernetes ended the pod: the reason of its DisruptionTarget condition or of the pod itself."""
    finish_time: str | None = None
    """When the worker ended."""


def name_of(pod: Manifest) -> str:
    """Name of an object."""
    return str(pod["metadata"]["name"])


def phase_of(pod: Manifest) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_over(pod: Manifest) -> bool:
    """Whether all containers have ended for good."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_terminating(pod: Manifest) -> bool:
    """Whether somebody deleted the pod and it still ends its work."""
    return "deletionTimestamp" in pod["metadata"] and not is_over(pod)


def is_stuck(pod: Manifest, now: datetime) -> bool:
    """Whether a pod is long past its deletionTimestamp, which is when it should have ended."""
    due = pod["metadata"].get("deletionTimestamp")
    return due is not None and not is_over(pod) and seconds_since(due, now) > STUCK_AFTER_S


def asked_to_leave_at(pod: Manifest) -> datetime | None:
    """When somebody deleted the pod: it has its grace period from then until its deletionTimestamp."""
    metadata = pod["metadata"]
    due = metadata.get("deletionTimestamp")
    if due is None:
        return None
    return parse_time(due) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def disruption_of(pod: Manifest) -> str:
    """Why Kubernetes takes the pod away; empty if it does not."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return str(condition.get("reason", "DisruptionTarget"))
    reason = str(status.get("reason", ""))
    return (
        reason
        if reason in ("Evicted", "NodeLost", "Preempting", "NodeShutdown", "Terminated")
        else ""
    )


def ending_of(pod: Manifest) -> Ending | None:
    """How the worker ended, or None if it has not, or left no trace."""
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
        if (failed := _failed_before_the_worker(pod)) is not None:
            return _read_ending(failed, node, disruption)
        status = pod.get("status", {})
        reason = disruption or str(status.get("reason", "Failed"))
        if not status.get("containerStatuses"):
            disruption = disruption or REFUSED
        return Ending(137, reason, str(status.get("message", "")), node=node, disruption=disruption)
    return None


def _failed_before_the_worker(pod: Manifest) -> Manifest | None:
    """The end of an init container that failed, such as one that waits for another pod in vain."""
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
    """Why a pod does not start: a reason in one word, and what was found and what to do."""

    reason: str
    message: str


def obstacle_of(pod: Manifest) -> Obstacle | None:
    """Why a pod is not running, as far as the pod itself says."""
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
                f"pod {name_of(pod)}: {message or reason}; create what is missing in the job's namespace",
            )
    for condition in statuses.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Obstacle(
                "Unschedulable", f"pod {name_of(pod)}: {condition.get('message', 'no node fits')}"
            )
    return None


def first_obstacle(pods: Iterable[Manifest]) -> Obstacle | None:
    """The first reason why any of the pods does not start."""
    return next((found for pod in pods if (found := obstacle_of(pod)) is not None), None)
