"""Where a workload stands in its queue: created suspended, and started by Kueue alone. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.times import seconds_since
from cosmos_operator.decide.training.workloads import wants_suspension
from cosmos_operator.plan.workload import QUEUE_LABEL

INTEGRATIONS = {
    "Job": "batch/job",
    "PyTorchJob": "kubeflow.org/pytorchjob",
    "TrainJob": "trainer.kubeflow.org/trainjob",
}


def waits_in_queue(draft: Draft, workload: Manifest) -> bool:
    """Whether a workload has not been admitted yet; answers Admitted for workloads that have a queue."""
    queue = workload["metadata"].get("labels", {}).get(QUEUE_LABEL)
    if queue is None:
        return False
    if not wants_suspension(workload):
        draft.condition(
            "Admitted", "True", "QuotaReserved", f"queue {queue!r} admitted the workload"
        )
        return False
    reason, message = _position(draft, workload, queue)
    draft.condition("Admitted", "False", reason, message)
    draft.say("Queued", message)
    draft.look_again(draft.settings.poll_seconds)
    return True


def admitted_at(draft: Draft, workload: Manifest) -> str | None:
    """When a queue last let a workload in; None if it has no queue."""
    if QUEUE_LABEL not in workload["metadata"].get("labels", {}):
        return None
    said = _of_kueue(draft, workload).get("Admitted", {})
    if said.get("status") == "True":
        return str(said["lastTransitionTime"])
    known = draft.conditions.get("Admitted")
    return known.last_transition_time if known is not None else None


def _of_kueue(draft: Draft, workload: Manifest) -> dict[str, Manifest]:
    """Conditions of Kueue's own object for a workload, by type; empty if there is none."""
    for candidate in draft.observed.queue_workloads:
        owners = candidate["metadata"].get("ownerReferences", ())
        if any(owner["uid"] == workload["metadata"]["uid"] for owner in owners):
            return {one["type"]: one for one in candidate.get("status", {}).get("conditions") or ()}
    return {}


def _position(draft: Draft, workload: Manifest, queue: str) -> tuple[str, str]:
    kind, metadata = workload["kind"], workload["metadata"]
    for candidate in draft.observed.queue_workloads:
        owners = candidate["metadata"].get("ownerReferences", ())
        if any(owner["uid"] == metadata["uid"] for owner in owners):
            conditions = candidate.get("status", {}).get("conditions") or ()
            said = next((c["message"] for c in conditions if c["type"] == "QuotaReserved"), "")
            return "QuotaPending", f"waits in queue {queue!r}" + (f": {said}" if said else "")
    if (
        seconds_since(metadata.get("creationTimestamp"), draft.now)
        < draft.settings.queue_grace_seconds
    ):
        return "QuotaPending", f"waits in queue {queue!r}"
    return "QueueNotHonored", (
        f"Kueue took no notice of {kind} {metadata['name']!r}; turn on its integration {INTEGRATIONS[kind]!r} in "
        "Kueue's configuration, or create the job with another spec.backend.type"
    )
