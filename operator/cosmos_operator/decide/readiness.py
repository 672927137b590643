"""The conditions by which other programs judge a job of any kind: Ready, Reconciling and Stalled. Pure.

They are those of kstatus (Flux, kubectl-based tools) and of the health check for Argo CD in docs/argocd.md. Their
messages do not follow the progress, so that they are written when the job begins and when it ends.
"""

from __future__ import annotations

from cosmos_operator.decide.conditions import Conditions


def set_in_progress(conditions: Conditions, suspended: str = "") -> None:
    """Set them for a job that has not ended.

    Args:
        conditions: all conditions of the job.
        suspended: the reason for which it is suspended; empty if it is not.
    """
    reason = "Suspended" if suspended else "InProgress"
    text = suspended or "the job has not ended yet"
    conditions.set("Ready", "False", reason, text)
    conditions.set("Reconciling", "True", reason, text)
    conditions.set("Stalled", "False", reason, text)


def set_succeeded(conditions: Conditions) -> None:
    """Set them for a job whose stages have all finished."""
    conditions.set("Ready", "True", "Succeeded", "all stages have finished")
    conditions.set("Reconciling", "False", "Succeeded", "all stages have finished")
    conditions.set("Stalled", "False", "Succeeded", "all stages have finished")


def set_failed(conditions: Conditions, reason: str, message: str) -> None:
    """Set them for a job that has failed."""
    conditions.set("Ready", "False", reason, message)
    conditions.set("Reconciling", "False", reason, "the job has failed")
    conditions.set("Stalled", "True", reason, message)
