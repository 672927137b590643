"""Facts stated by the manifest of a Kubernetes object: its name, owners, times, and the state of a workload. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cosmos_operator.kube.kinds import Manifest

# --- metadata ----------------------------------------------------------------------------------


def name_of(manifest: Manifest) -> str:
    """Name of an object."""
    return str(manifest["metadata"]["name"])


def labels_of(manifest: Manifest) -> Mapping[str, str]:
    """Labels of an object."""
    labels: Mapping[str, str] = manifest["metadata"].get("labels", {})
    return labels


def owner_uids(manifest: Manifest) -> set[str]:
    """Uids of the objects that own this one."""
    return {owner["uid"] for owner in manifest["metadata"].get("ownerReferences", ())}


def is_being_deleted(manifest: Manifest) -> bool:
    """True once somebody has deleted the object and it waits for what it owns, or for its pods, to go."""
    return "deletionTimestamp" in manifest["metadata"]


# --- times -------------------------------------------------------------------------------------


def parse_time(text: str) -> datetime:
    """``2026-01-31T12:00:00Z``, with or without fractions of a second, as an aware datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def format_time(time: datetime) -> str:
    """A time as RFC 3339 in UTC with whole seconds, the form that Kubernetes writes."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str | None, now: datetime) -> float:
    """Seconds that have passed since a time; 0 if there is no time."""
    return (now - parse_time(text)).total_seconds() if text else 0.0


def format_duration(seconds: float) -> str:
    """A duration for people: 1h42m, 5m10s or 42s."""
    total = max(0, round(seconds))
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


# --- workloads ---------------------------------------------------------------------------------

State = Literal["Suspended", "Active", "Succeeded", "Failed"]

_SUCCESS_CONDITIONS = {"Job": "Complete", "PyTorchJob": "Succeeded", "TrainJob": "Complete"}


@dataclass(frozen=True)
class WorkloadState:
    """State of a Job, PyTorchJob or TrainJob, as its controller reports it."""

    state: State
    reason: str = ""
    message: str = ""
    finish_time: str | None = None


def read_state(workload: Manifest) -> WorkloadState:
    """The state of a workload of any of the ``WORKLOAD_KINDS``."""
    conditions = conditions_of(workload)
    outcomes: tuple[tuple[str, State], ...] = (
        (_SUCCESS_CONDITIONS[workload["kind"]], "Succeeded"),
        ("Failed", "Failed"),
    )
    for name, state in outcomes:
        if name in conditions:
            found = conditions[name]
            finished = workload["status"].get("completionTime") or found.get("lastTransitionTime")
            reason, message = str(found.get("reason", "")), str(found.get("message", ""))
            return WorkloadState(state, reason, message, finished)
    return WorkloadState("Suspended" if wants_suspension(workload) else "Active")


def has_been_noticed(workload: Manifest) -> bool:
    """True once the controller of a workload has written anything about it."""
    status = workload.get("status") or {}
    return any(status.get(name) for name in ("conditions", "startTime", "jobsStatus"))


def has_made_pods(workload: Manifest) -> bool:
    """True if the controller of a workload counts pods of it, whatever became of them."""
    status = workload.get("status") or {}
    parts = [status, *(status.get("replicaStatuses") or {}).values(), *status.get("jobsStatus", ())]
    return any(part.get(name) for part in parts for name in ("active", "failed", "succeeded"))


def conditions_of(workload: Manifest) -> Mapping[str, Manifest]:
    """Conditions of an object that are true, by type."""
    conditions = workload.get("status", {}).get("conditions") or ()
    return {one["type"]: one for one in conditions if one["status"] == "True"}


def wants_suspension(workload: Manifest) -> bool:
    """True if the specification keeps the workload's pods from running, as it does until Kueue admits the workload."""
    spec = workload["spec"]
    if workload["kind"] == "PyTorchJob":
        spec = spec.get("runPolicy", {})
    return bool(spec.get("suspend", False))
