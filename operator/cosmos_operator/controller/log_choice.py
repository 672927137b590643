"""Chooses the pods of a job whose logs are read, and how many lines. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_NAME_LABEL, STAGE_LABEL
from cosmos_operator.kube.containers import has_started, worker_end
from cosmos_operator.kube.kinds import Manifest, ObjectKey
from cosmos_operator.kube.objects import labels_of, read_state
from cosmos_operator.kube.pods import ending_of, is_over
from cosmos_operator.plan.backend import BACKENDS

LOG_LINES = 400
"""Lines of a log that are read: enough to hold a line of progress, whatever else the processes of a pod write."""
LAST_LINES = 20
"""Lines that are read of the log of a stage that has ended, for the status."""


def choose_logs(
    pods: Iterable[Manifest], objects: Mapping[ObjectKey, Manifest], told_stages: Collection[str]
) -> Iterator[tuple[Manifest, int]]:
    """Pods with the number of lines to read: workers that run, the latest leader, stages that have just ended.

    Args:
        pods: pods of a job.
        objects: its other objects.
        told_stages: stages that have ended and whose last lines the status has.
    """
    pods = list(pods)
    latest = max(map(_attempt_of, pods), default=0)
    for pod in pods:
        attempt, has_ended = _attempt_of(pod), worker_end(pod) is not None
        if not has_started(pod) or not _reports_progress(pod):
            continue
        if attempt and is_over(pod) and attempt != latest:
            continue
        if not attempt and has_ended and not _is_to_be_told(pod, objects, told_stages):
            continue
        yield pod, LAST_LINES if has_ended and not attempt else LOG_LINES


def _is_to_be_told(
    pod: Manifest, objects: Mapping[ObjectKey, Manifest], told_stages: Collection[str]
) -> bool:
    """True for the pod that ended a stage whose last lines neither the status nor its worker's message has."""
    labels = labels_of(pod)
    ending = ending_of(pod)
    if labels.get(STAGE_LABEL) in told_stages or (ending and not ending.exit_code and ending.lines):
        return False
    job = objects.get(("Job", labels.get(JOB_NAME_LABEL, "")))
    is_done = job is None or read_state(job).state in ("Succeeded", "Failed")
    return is_done or not is_over(pod)  # not over: other containers keep it


def _attempt_of(pod: Manifest) -> int:
    """Number of the attempt that a training pod belongs to; 0 for other pods."""
    return int(labels_of(pod).get(ATTEMPT_LABEL, 0))


def _reports_progress(pod: Manifest) -> bool:
    """True for pods whose log is read: the leader of a training, and every pod of another stage."""
    own = labels_of(pod).items()
    leads = any(backend.leader_labels.items() <= own for backend in BACKENDS.values())
    return leads or not _attempt_of(pod)
