"""The persistent volume claims of a job: all there, wide enough, and bound as soon as they can be. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of, seconds_since
from cosmos_operator.plan.render import build_claims
from cosmos_operator.plan.volumes import claim_fields

MANY_NODES, ONE_POD = "ReadWriteMany", "ReadWriteOncePod"
PENDING_CLAIM_GRACE_S = 10
"""Age from which on a pending claim's latest warning is quoted."""

Problem = tuple[str, str]
"""Reason in one word, and message."""


def check_storage(pass_: Pass) -> bool:
    """True if all claims can serve the job; creates those that the job asks to create. Sets StorageReady."""
    for claim in build_claims(pass_.job):
        if pass_.observed.get("PersistentVolumeClaim", name_of(claim)) is None:
            pass_.create_unowned(claim)
    fields = claim_fields(pass_.job)
    found = [_claim_problem(pass_, name, field) for name, field in fields.items()]
    problems = [problem for problem in found if problem is not None]
    if problems:
        reason, message = problems[0][0], "; ".join(text for _, text in problems)
        pass_.set_condition("StorageReady", "False", reason, message)
        pass_.propose_state("Pending", message)
        pass_.poll(pass_.document["metadata"].get("creationTimestamp"))
        return False
    pass_.set_condition(
        "StorageReady", "True", "Usable", f"all claims can be used: {', '.join(fields)}"
    )
    return True


def _claim_problem(pass_: Pass, name: str, field: str) -> Problem | None:
    """The reason for which a claim cannot serve the job now; None if it can."""
    claim = pass_.observed.get("PersistentVolumeClaim", name)
    if claim is None:
        return _absence(pass_, name, field)
    modes = claim["spec"].get("accessModes", ())
    nodes = pass_.job.spec.compute.nodes
    if ONE_POD in modes:
        return "AccessModeInsufficient", (
            f"{field}: claim {name!r} is {ONE_POD}, but several pods use it; use a claim with {MANY_NODES}"
        )
    if nodes > 1 and MANY_NODES not in modes and "ReadOnlyMany" not in modes:
        return "AccessModeInsufficient", (
            f"{field}: claim {name!r} offers {', '.join(modes)}, but pods on {nodes} nodes use it; use a claim with "
            f"{MANY_NODES}, or spec.compute.nodes=1"
        )
    return _binding_problem(pass_, claim, name, field)


def _absence(pass_: Pass, name: str, field: str) -> Problem:
    """The reason for which there is no such claim."""
    refusal = pass_.observed.refusals.get(("PersistentVolumeClaim", name))
    if refusal:
        return "ClaimRefused", f"{field}: claim {name!r} cannot be created: {refusal}"
    if any(name_of(one) == name for one in build_claims(pass_.job)):
        return "ClaimIsCreated", f"{field}: claim {name!r} is being created"
    available = ", ".join(pass_.observed.claim_names) or "none"
    return "ClaimNotFound", (
        f"{field}: no claim {name!r} in this namespace (there: {available}); create it, or let the job create it "
        f"with spec.storage.*.create"
    )


def _binding_problem(pass_: Pass, claim: Manifest, name: str, field: str) -> Problem | None:
    """The reason for which a claim has no volume; None if it has one, or gets it when a pod uses it."""
    phase = claim.get("status", {}).get("phase", "Pending")
    if phase == "Lost":
        return "ClaimLost", f"{field}: claim {name!r} has lost its volume; restore it"
    if phase == "Bound" or _binds_on_first_use(pass_, claim):
        return None
    age = seconds_since(claim["metadata"].get("creationTimestamp"), pass_.now)
    warning = pass_.observed.warnings.get(("PersistentVolumeClaim", name), "")
    detail = f": {warning}" if warning and age >= PENDING_CLAIM_GRACE_S else ""
    storage_class = claim["spec"].get("storageClassName") or "the default storage class"
    return "ClaimPending", (
        f"{field}: claim {name!r} waits for a volume of {storage_class}{detail}; check the class and its provisioner"
    )


def _binds_on_first_use(pass_: Pass, claim: Manifest) -> bool:
    """True if a claim may get its volume only when a pod uses it, so that waiting for it would be for ever."""
    name = claim["spec"].get("storageClassName")
    if pass_.observed.storage_classes is None:
        return True  # the class cannot be read, so a pod must try
    found = pass_.observed.storage_classes.get(name) if name else None
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"
