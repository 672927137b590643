"""Where a workload stands in its queue: created suspended, and started by Kueue alone. Pure."""

from __future__ import annotations

from cosmos_operator.decide.draft import Draft, Manifest
from cosmos_operator.decide.times import seconds_since
from cosmos_operator.decide.workloads import wants_suspension
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
