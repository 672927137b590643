"""State of a workload, whatever its kind: Job, PyTorchJob or TrainJob. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cosmos_operator.plan.trainjob import MANAGER

Manifest = dict[str, Any]
State = Literal["Suspended", "Active", "Succeeded", "Failed"]

WORKLOAD_KINDS = ("Job", "PyTorchJob", "TrainJob")
_SUCCEEDED = {"Job": "Complete", "PyTorchJob": "Succeeded", "TrainJob": "Complete"}


@dataclass(frozen=True)
class WorkloadState:
    """What a workload's controller says."""

    state: State
    reason: str = ""
    message: str = ""
    finish_time: str | None = None


def conditions_of(workload: Manifest) -> Mapping[str, Manifest]:
    """Conditions that are true, by type."""
    conditions = workload.get("status", {}).get("conditions") or ()
    return {one["type"]: one for one in conditions if one["status"] == "True"}


def is_being_deleted(workload: Manifest) -> bool:
    """Whether the workload waits for what it owns to go."""
    return "deletionTimestamp" in workload["metadata"]


def wants_suspension(workload: Manifest) -> bool:
    """Whether the workload's specification keeps it from running, as Kueue does until its turn comes."""
    spec = workload["spec"]
    if workload["kind"] == "PyTorchJob":
        spec = spec.get("runPolicy", {})
    return bool(spec.get("suspend", False))


def has_lost_its_pod(workload: Manifest) -> bool:
    """Whether somebody has written a TrainJob without the patch that describes our pods."""
    if workload["kind"] != "TrainJob":
        return False
    patches = workload["spec"].get("runtimePatches") or ()
    return all(patch.get("manager") != MANAGER for patch in patches)


def read_state(workload: Manifest) -> WorkloadState:
    """The state of a workload."""
    conditions = conditions_of(workload)
    for name, state in ((_SUCCEEDED[workload["kind"]], "Succeeded"), ("Failed", "Failed")):
        if name in conditions:
            found = conditions[name]
            finished = workload["status"].get("completionTime") or found.get("lastTransitionTime")
            return WorkloadState(
                "Succeeded" if state == "Succeeded" else "Failed",
                str(found.get("reason", "")),
                str(found.get("message", "")),
                finished,
            )
    return WorkloadState("Suspended" if wants_suspension(workload) else "Active")
