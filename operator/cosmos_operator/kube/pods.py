"""Facts that a pod states: its phase, the end of its worker, the reason for which it does not start. Pure.

What the worker did is read from its own container, see :mod:`cosmos_operator.kube.containers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cosmos_operator.kube.containers import (
    failed_init_container,
    has_started,
    memory_limit,
    worker_end,
    worker_name,
)
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of, parse_time, seconds_since
from cosmos_operator.kube.termination import read_message, shown

IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
"""Reasons of a waiting container whose image cannot be pulled, as the kubelet has them."""
COMING_REASONS = ("", "ContainerCreating", "PodInitializing")
"""Reasons of a waiting container with which nothing is wrong; all others say why it cannot be created."""
CRASHES = "CrashLoopBackOff"
"""Reason of a waiting container that has ended and is started again: in our pods only native sidecars are."""
FOREIGN_REMEDY = (
    "correct it where it is put into the pod: a pod template of the job or of the chart, or the software of the "
    "cluster that injects it"
)
PULL_REMEDIES = {
    "init-pytorch": "the training-operator puts it there: start that with --pytorch-init-container-image=IMAGE"
}
"""Container of another operator → what to do if its image cannot be pulled."""
STUCK_AFTER_S = 60
"""Seconds after its deletionTimestamp from which on a pod counts as stuck on a node that does not answer."""
LOST_REASONS = ("ContainerStatusUnknown", "Unknown")
"""Reasons of a container that was running when its node went away or was restarted: nobody knows how it ended."""
REFUSED = "RefusedByNode"
"""Disruption of a pod of which no container ever ran: the node rejected it, for lack of a device or of room."""
INIT_FAILED = "InitContainerFailed"
"""Reason of the ending of a pod whose worker never ran, because an init container failed before it."""
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
    start_time: str | None = None
    """Time at which the worker began, by the clock of its node."""
    finish_time: str | None = None
    """Time at which the worker ended, by the clock of its node."""
    lines: tuple[str, ...] = ()
    """Last lines of the worker's log, if its termination message has them."""
    memory_limit: str = ""
    """Memory limit of the worker's container; empty if it had none."""

    @property
    def is_of_worker(self) -> bool:
        """False if the worker never ran, because an init container failed before it."""
        return self.reason != INIT_FAILED


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
    ended = worker_end(pod)
    if ended is not None:
        if "deletionTimestamp" not in pod["metadata"] and ended.get("reason") in LOST_REASONS:
            disruption = disruption or str(ended["reason"])
        return replace(
            _read_ending(ended, node, disruption),
            start_time=ended.get("startedAt"),
            finish_time=ended.get("finishedAt"),
            memory_limit=memory_limit(pod),
        )
    if phase_of(pod) == "Failed":
        if (failed := failed_init_container(pod)) is not None:
            return _ending_of_init_container(pod, failed, disruption)
        status = pod.get("status", {})
        reason = disruption or str(status.get("reason", "Failed"))
        if not status.get("containerStatuses"):
            disruption = disruption or REFUSED
        return Ending(137, reason, str(status.get("message", "")), node=node, disruption=disruption)
    return None


def _ending_of_init_container(pod: Manifest, status: Manifest, disruption: str) -> Ending:
    """The ending of a pod in which an init container failed, such as one that waited for another pod in vain."""
    ended, name = status["state"]["terminated"], status["name"]
    exit_code, words = int(ended["exitCode"]), str(ended.get("message", "")).strip()
    last = shown(words.rsplit("\n", 1)[-1]) or ended.get("reason", "")
    return Ending(
        exit_code,
        INIT_FAILED,
        f"the worker did not run: init container {name!r} (image {status.get('image', '?')!r}), which is not ours, "
        f"ended with exit code {exit_code}: {last}; its log: kubectl logs {name_of(pod)} -c {name}",
        node=str(pod["spec"].get("nodeName", "")),
        disruption=disruption,
        finish_time=ended.get("finishedAt"),
    )


def _read_ending(ended: Manifest, node: str, disruption: str) -> Ending:
    exit_code, reason = int(ended.get("exitCode", 0)), str(ended.get("reason", ""))
    text = str(ended.get("message", ""))
    said = read_message(text)
    if said is None:
        last = shown(text.strip().rsplit("\n", 1)[-1])
        return Ending(exit_code, reason, last, node=node, disruption=disruption)
    if reason != "OOMKilled":
        reason = said.reason or reason
    return Ending(
        exit_code,
        reason,
        said.message,
        step=said.step,
        checkpoint=said.checkpoint,
        node=node or said.node,
        result=said.result,
        disruption=disruption,
        lines=said.lines,
    )


@dataclass(frozen=True)
class Obstacle:
    """The reason for which a pod does not start, in one word and in a sentence with what to do."""

    reason: str
    message: str


def obstacle_of(pod: Manifest) -> Obstacle | None:
    """The reason for which a pod's worker does not start; None if it has started, or the pod states no reason."""
    if phase_of(pod) != "Pending" or has_started(pod):
        return None
    statuses = pod.get("status", {})
    for status in (
        *(statuses.get("initContainerStatuses") or ()),
        *(statuses.get("containerStatuses") or ()),
    ):
        is_ours = status["name"] == worker_name(pod)
        found = _obstacle_of_container(pod, status, is_ours=is_ours)
        if found is not None:
            return found
    for condition in statuses.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Obstacle(
                "Unschedulable", f"pod {name_of(pod)}: {condition.get('message', 'no node fits')}"
            )
    return None


def _obstacle_of_container(pod: Manifest, status: Manifest, *, is_ours: bool) -> Obstacle | None:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    name, image = status["name"], status.get("image")
    where = f"pod {name_of(pod)}" + ("" if is_ours else f", container {name!r}, which is not ours")
    if reason in IMAGE_REASONS:
        remedy = (
            "set spec.compute.image or the chart's worker image to one that the nodes can pull, or give the Secret of "
            "its registry (imagePullSecrets of the pod template or of the chart)"
            if is_ours
            else PULL_REMEDIES.get(name, FOREIGN_REMEDY)
        )
        return Obstacle(
            "ImagePullFailed",
            f"{where}: image {image!r} cannot be pulled: {message or reason}; {remedy}",
        )
    if reason == CRASHES:
        last = (status.get("lastState") or {}).get("terminated") or {}
        code = last.get("exitCode", "?")
        text = f"{where}: it ends again and again with exit code {code}; {FOREIGN_REMEDY}"
        return Obstacle("ContainerCrashes", text)
    if reason in COMING_REASONS:
        return None
    remedy = "create what is missing in the job's namespace, or mend what refuses it on the node"
    text = f"{where}: the container cannot be created ({reason}): {message or reason}; {remedy}"
    return Obstacle("ContainerNotCreated", text)


def first_obstacle(pods: Iterable[Manifest]) -> Obstacle | None:
    """The obstacle of the first pod that states one."""
    return next((found for pod in pods if (found := obstacle_of(pod)) is not None), None)
