"""The outcome of an attempt, from the endings of its pods, and which outcomes count. Pure.

A rank that fails lets the others fail, so the pods of one attempt often end for different reasons. The ending that
explains the others decides: a mistake of the user before a fault of the machine, before a crash, before a lost peer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosmos_operator.api.status import Outcome
from cosmos_operator.kube.pods import (
    LOST_REASONS,
    REFUSED,
    Ending,
)
from cosmos_worker.errors import (
    EXIT_CONTINUE,
    EXIT_GPU_FAULT,
    EXIT_OK,
    EXIT_PEER_LOST,
    EXIT_RETRY,
    EXIT_USER_ERROR,
    FolderInUseError,
)

COUNTED: frozenset[Outcome] = frozenset(
    {"IoFailed", "OutOfMemory", "PeerLost", "Crashed", "Stalled", "NotStarted"}
)
"""Outcomes that count towards runPolicy.maxAttempts."""
CONSEQUENCES: tuple[Outcome, ...] = ("PeerLost", "Stopped", "Succeeded")
"""Outcomes of pods that ended because others did."""

_BY_EXIT_CODE: dict[int, Outcome] = {
    EXIT_OK: "Succeeded",
    EXIT_USER_ERROR: "UserError",
    EXIT_RETRY: "IoFailed",
    EXIT_CONTINUE: "Stopped",
    EXIT_PEER_LOST: "PeerLost",
    EXIT_GPU_FAULT: "GpuFault",
}
_BY_DISRUPTION: dict[str, Outcome] = {
    "PreemptionByScheduler": "Preempted",
    "Preempting": "Preempted",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
    "Evicted": "Evicted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "NodeLost": "NodeLost",
    REFUSED: "NodeLost",
    **dict.fromkeys(LOST_REASONS, "NodeLost"),
    "NodeShutdown": "Evicted",
    "Terminated": "Evicted",
}
_PRECEDENCE: tuple[Outcome, ...] = (
    "UserError", "GpuFault", "NodeLost", "Preempted", "Evicted", "OutOfMemory", "IoFailed",
    "Crashed", "Deleted", "Stopped", "PeerLost", "Succeeded",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """The ending that explains an attempt, and its outcome."""

    outcome: Outcome
    ending: Ending


def outcome_of(ending: Ending) -> Outcome:
    """The outcome that one ending stands for by itself."""
    if not ending.is_of_worker and not ending.disruption:
        return "Crashed"  # its exit code is that of a container that is not ours
    if ending.exit_code in (EXIT_OK, EXIT_USER_ERROR, EXIT_GPU_FAULT):
        return _BY_EXIT_CODE[ending.exit_code]
    if ending.disruption:
        return _BY_DISRUPTION.get(ending.disruption, "Evicted")
    if ending.reason == "StartError" and "nvidia" in ending.message.lower():
        return "GpuFault"  # the container runtime could not give it the GPUs
    if ending.reason in ("OOMKilled", "OutOfMemory"):
        return "OutOfMemory"
    if ending.reason == FolderInUseError.__name__:
        return "Stopped"  # an earlier attempt is not over, and this one lost nothing
    return _BY_EXIT_CODE.get(ending.exit_code, "Crashed")


def classify(endings: Iterable[Ending]) -> Verdict | None:
    """The verdict on an attempt; None if none of its pods left a trace."""
    verdicts = [Verdict(outcome_of(ending), ending) for ending in endings]
    if not verdicts:
        return None
    return min(verdicts, key=lambda verdict: _PRECEDENCE.index(verdict.outcome))
