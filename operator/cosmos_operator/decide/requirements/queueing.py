"""The Kueue queue of a job, and the admission of its workloads: created suspended, started by Kueue alone. Pure."""

from __future__ import annotations

from cosmos_operator.api.labels import QUEUE_LABEL
from cosmos_operator.decide.pass_state import LONG_WAIT_S, Pass
from cosmos_operator.decide.requirements.unattended import holding_message
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import labels_of, owner_uids, seconds_since, wants_suspension

INTEGRATIONS = {
    "Job": "batch/job",
    "PyTorchJob": "kubeflow.org/pytorchjob",
    "TrainJob": "trainer.kubeflow.org/trainjob",
}
"""Kind of a workload → its name among the frameworks in Kueue's configuration."""


def check_queue(pass_: Pass) -> bool:
    """True if the queue that the job names exists, or it names none; otherwise sets Admitted to False."""
    name = pass_.job.queue_name
    if not name:
        pass_.set_condition("Admitted", "True", "NoQueue", "the job names no queue")
        return True
    if "LocalQueue" not in pass_.observed.served:
        message = (
            f"spec.scheduling.queueName: {name!r} needs Kueue (CustomResourceDefinition localqueues.kueue.x-k8s.io), "
            "which this cluster lacks; install it, or remove the name"
        )
        pass_.awaits_kind = True
        return _lacks_queue(pass_, "QueueingUnavailable", message)
    if name not in pass_.observed.queue_names:
        available = ", ".join(pass_.observed.queue_names) or "none"
        message = (
            f"spec.scheduling.queueName: no LocalQueue {name!r} in this namespace (there: {available}); create it, or "
            "name one of these"
        )
        return _lacks_queue(pass_, "QueueNotFound", message)
    return True


def _lacks_queue(pass_: Pass, reason: str, message: str) -> bool:
    pass_.set_condition("Admitted", "False", reason, message)
    pass_.propose_state("Queued", message)
    pass_.requeue_after(LONG_WAIT_S)
    return False


def waits_in_queue(pass_: Pass, workload: Manifest) -> bool:
    """True if Kueue has not admitted a workload yet; sets Admitted for workloads that have a queue."""
    queue = labels_of(workload).get(QUEUE_LABEL)
    if queue is None:
        return wants_suspension(workload) and _is_held(pass_, workload)
    if not wants_suspension(workload):
        message = f"queue {queue!r} admitted the workload"
        pass_.set_condition("Admitted", "True", "QuotaReserved", message)
        return False
    reason, message = _queue_state(pass_, workload, queue)
    pass_.set_condition("Admitted", "False", reason, message)
    pass_.propose_state("Queued", message)
    pass_.requeue_after(LONG_WAIT_S)
    return True


def _is_held(pass_: Pass, workload: Manifest) -> bool:
    """Set Admitted for a workload that names no queue, and that somebody else has suspended."""
    conditions = _kueue_conditions(pass_, workload)
    age_s = seconds_since(workload["metadata"].get("creationTimestamp"), pass_.now)
    if conditions is not None:
        reason, message = "QuotaPending", _waiting_message(conditions, "waits for Kueue")
    elif age_s < pass_.settings.queue_grace_seconds:
        reason, message = "Held", "something else keeps its workload suspended"
    else:
        reason, message = "HeldWithoutQueue", holding_message(pass_, workload)
    pass_.set_condition("Admitted", "False", reason, message)
    pass_.propose_state("Queued", message)
    pass_.requeue_after(pass_.settings.poll_seconds)
    return True


def _waiting_message(conditions: dict[str, Manifest], text: str) -> str:
    detail = conditions.get("QuotaReserved", {}).get("message", "")
    return f"{text}: {detail}" if detail else text


def admitted_at(pass_: Pass, workload: Manifest) -> str | None:
    """Time at which a queue last admitted a workload; None if it has no queue."""
    if QUEUE_LABEL not in labels_of(workload):
        return None
    admitted = (_kueue_conditions(pass_, workload) or {}).get("Admitted", {})
    if admitted.get("status") == "True":
        return str(admitted["lastTransitionTime"])
    known = pass_.conditions.get("Admitted")
    return known.last_transition_time if known is not None else None


def _queue_state(pass_: Pass, workload: Manifest, queue: str) -> tuple[str, str]:
    """Reason and message of a workload that waits."""
    conditions = _kueue_conditions(pass_, workload)
    if conditions is not None:
        return "QuotaPending", _waiting_message(conditions, f"waits in queue {queue!r}")
    kind, metadata = workload["kind"], workload["metadata"]
    age_s = seconds_since(metadata.get("creationTimestamp"), pass_.now)
    if age_s < pass_.settings.queue_grace_seconds:
        pass_.requeue_after(pass_.settings.queue_grace_seconds - age_s + 1)
        return "QuotaPending", f"waits in queue {queue!r}"
    return "QueueNotHonored", (
        f"Kueue took no notice of {kind} {metadata['name']!r}; turn on its integration {INTEGRATIONS[kind]!r} in "
        "Kueue's configuration, or choose another spec.backend.type"
    )


def _kueue_conditions(pass_: Pass, workload: Manifest) -> dict[str, Manifest] | None:
    """Conditions of the Workload object that Kueue keeps for a workload, by type; None if there is no such object."""
    uid = workload["metadata"]["uid"]
    for candidate in pass_.observed.queue_workloads:
        if uid in owner_uids(candidate):
            return {one["type"]: one for one in candidate.get("status", {}).get("conditions") or ()}
    return None
