"""What a job needs before anything runs: its backend, its claims, its queue, its GPUs. Pure.

Everything here can be mended from outside without a change to the job, so nothing of it fails the job: it waits, and
a condition says what was asked for, what there is, and what to do.
"""

from __future__ import annotations

from cosmos_operator.api.machines import VolumeSpec
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.times import seconds_since
from cosmos_operator.plan.backend import BACKENDS, Backend, choose_backend
from cosmos_operator.plan.render import build_claims
from cosmos_operator.plan.volumes import named_claims
from cosmos_worker.storage.volumes import VOLUMES

MANY_NODES, ONE_POD = "ReadWriteMany", "ReadWriteOncePod"
PENDING_CLAIM_GRACE_S = 10


def check_backend(draft: Draft) -> Backend | None:
    """The backend of the job's attempts, or None if the cluster lacks it."""
    wanted = draft.job.spec.backend.type
    if wanted == "Auto" and draft.previous.attempts:
        wanted = draft.previous.attempts[-1].backend
    backend = choose_backend(wanted, draft.observed.served)
    if backend.needs and backend.kind not in draft.observed.served:
        there = ", ".join(
            kind for kind in BACKENDS if kind == "Job" or kind in draft.observed.served
        )
        message = (
            f"spec.backend.type: {backend.kind} needs {backend.needs}, which this cluster lacks; install it, or "
            f"create the job with another backend (this cluster has: {there})"
        )
        draft.condition("Accepted", "False", "BackendUnavailable", message)
        draft.say("Pending", message)
        draft.look_again(draft.settings.poll_seconds)
        return None
    draft.condition("Accepted", "True", "Valid", f"runs as {backend.kind}")
    return backend


# --- storage ---------------------------------------------------------------------------------


def check_storage(draft: Draft) -> bool:
    """Whether all claims are there and wide enough; creates those that the job asks to create."""
    for claim in build_claims(draft.job):
        if draft.observed.get("PersistentVolumeClaim", claim["metadata"]["name"]) is None:
            draft.create_unowned(claim)
    problems = []
    for name, field in claim_fields(draft.job).items():
        if problem := _claim_problem(draft, name, field):
            problems.append(problem)
    if problems:
        reason, message = problems[0][0], "; ".join(text for _, text in problems)
        draft.condition("StorageReady", "False", reason, message)
        draft.say("Pending", message)
        draft.look_again(draft.settings.poll_seconds)
        return False
    names = ", ".join(claim_fields(draft.job))
    draft.condition("StorageReady", "True", "Usable", f"claims: {names}")
    return True


def claim_fields(job: PostTrainingJob) -> dict[str, str]:
    """Claims that a job uses → the field that names each first."""
    found: dict[str, str] = {}
    for volume in VOLUMES:
        spec: VolumeSpec = getattr(job.spec.storage, volume)
        found.setdefault(spec.claim_name, f"spec.storage.{volume}.claimName")
    for field, claim in named_claims(job).items():
        found.setdefault(claim, field)
    return found


def _claim_problem(draft: Draft, name: str, field: str) -> tuple[str, str] | None:
    """(reason, message) if a claim cannot serve the job now."""
    claim = draft.observed.get("PersistentVolumeClaim", name)
    if claim is None:
        refusal = draft.observed.refusals.get(("PersistentVolumeClaim", name))
        if refusal:
            return "ClaimRefused", f"{field}: claim {name!r} cannot be created: {refusal}"
        if any(one["metadata"]["name"] == name for one in build_claims(draft.job)):
            return "ClaimIsCreated", f"{field}: claim {name!r} is being created"
        there = ", ".join(draft.observed.claim_names) or "none"
        return "ClaimNotFound", (
            f"{field}: no claim {name!r} in this namespace (there: {there}); create it, or let the job create it "
            f"with spec.storage.*.create"
        )
    modes = claim["spec"].get("accessModes", ())
    nodes = draft.job.spec.compute.nodes
    if ONE_POD in modes:
        return "AccessModeInsufficient", (
            f"{field}: claim {name!r} is {ONE_POD}, but several pods use it; use a claim with {MANY_NODES}"
        )
    if nodes > 1 and MANY_NODES not in modes and "ReadOnlyMany" not in modes:
        return "AccessModeInsufficient", (
            f"{field}: claim {name!r} offers {', '.join(modes)}, but pods on {nodes} nodes use it; use a claim with "
            f"{MANY_NODES}, or spec.compute.nodes=1"
        )
    return _binding_problem(draft, claim, name, field)


def _binding_problem(
    draft: Draft, claim: Manifest, name: str, field: str
) -> tuple[str, str] | None:
    phase = claim.get("status", {}).get("phase", "Pending")
    if phase == "Lost":
        return "ClaimLost", f"{field}: claim {name!r} has lost its volume; restore it"
    if phase == "Bound" or _waits_for_pod(draft, claim):
        return None
    age = seconds_since(claim["metadata"].get("creationTimestamp"), draft.now)
    warning = draft.observed.warnings.get(("PersistentVolumeClaim", name), "")
    detail = f": {warning}" if warning and age >= PENDING_CLAIM_GRACE_S else ""
    storage_class = claim["spec"].get("storageClassName") or "the default storage class"
    return "ClaimPending", (
        f"{field}: claim {name!r} waits for a volume of {storage_class}{detail}; check the class and its provisioner"
    )


def _waits_for_pod(draft: Draft, claim: Manifest) -> bool:
    """Whether a claim binds only when a pod uses it, so that waiting for it would be for ever."""
    name = claim["spec"].get("storageClassName")
    if draft.observed.storage_classes is None:
        return True  # whether it binds cannot be known before a pod wants it
    found = draft.observed.storage_classes.get(name) if name else None
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


# --- queue and GPUs --------------------------------------------------------------------------


def check_queue(draft: Draft) -> bool:
    """Whether the queue that the job names exists; answers Admitted where it does not."""
    name = draft.job.spec.scheduling.queue_name
    if not name:
        draft.condition("Admitted", "True", "NoQueue", "the job names no queue")
        return True
    if "LocalQueue" not in draft.observed.served:
        message = (
            f"spec.scheduling.queueName: {name!r} needs Kueue (CustomResourceDefinition localqueues.kueue.x-k8s.io), "
            "which this cluster lacks; install it, or create the job without a queue"
        )
        return _no_queue(draft, "QueueingUnavailable", message)
    if name not in draft.observed.queue_names:
        there = ", ".join(draft.observed.queue_names) or "none"
        message = (
            f"spec.scheduling.queueName: no LocalQueue {name!r} in this namespace (there: {there}); create it, or "
            "create the job with one of these"
        )
        return _no_queue(draft, "QueueNotFound", message)
    return True


def _no_queue(draft: Draft, reason: str, message: str) -> bool:
    draft.condition("Admitted", "False", reason, message)
    draft.say("Queued", message)
    draft.look_again(draft.settings.poll_seconds)
    return False


def offered_gpus(draft: Draft) -> dict[str, int] | None:
    """Node with the labels that are asked for → GPUs that it has; None if the nodes are not known."""
    if draft.observed.nodes is None:
        return None
    compute, selector = draft.job.spec.compute, draft.job.spec.scheduling.node_selector
    return {
        node["metadata"]["name"]: int(
            node.get("status", {}).get("allocatable", {}).get(compute.gpu_resource_name, 0)
        )
        for node in draft.observed.nodes
        if selector.items() <= node["metadata"].get("labels", {}).items()
    }


def gpu_shortage(draft: Draft, gpus: int, nodes: int) -> str:
    """What is missing if no nodes of this cluster can ever offer so many GPUs; empty if they can."""
    offers = offered_gpus(draft)
    if offers is None or not gpus:
        return ""
    compute, selector = draft.job.spec.compute, draft.job.spec.scheduling.node_selector
    if sum(offer >= gpus for offer in offers.values()) >= nodes:
        return ""
    best = sorted(offers.items(), key=lambda item: -item[1])[:3]
    there = ", ".join(f"{name} has {offer}" for name, offer in best) or "no node fits"
    chosen = " with the labels of spec.scheduling.nodeSelector" if selector else ""
    return (
        f"asks for {gpus} {compute.gpu_resource_name} on each of {nodes} node{'s' if nodes > 1 else ''}; "
        f"nodes{chosen}: {there}; add nodes, or create the job with other values of spec.compute"
    )
