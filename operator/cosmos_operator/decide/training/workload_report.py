"""The annotations of a running attempt's workload: the steps that a preemption would cost, and progress. Pure.

Programs that choose what to preempt, and people, see the steps since the last checkpoint in an annotation. A TrainJob
has a place for progress in its own status, which Kubeflow's tools show.
"""

from __future__ import annotations

from cosmos_operator.api.labels import COST_ANNOTATION, COST_TIME_ANNOTATION
from cosmos_operator.api.status import Progress
from cosmos_operator.decide.decision import Annotate, ReportProgress
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.training.pods import Gang
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time, is_being_deleted, name_of, seconds_since

PERIOD_IN_PROGRESS = 2.0
"""Shortest time between two reports, in units of ``progress_seconds``."""


def report_to_workload(pass_: Pass, gang: Gang) -> None:
    """Update the annotation of a running attempt's workload, and the progress of a TrainJob, now and then."""
    workload, progress = gang.workload, pass_.progress
    if workload is None or progress is None or is_being_deleted(workload):
        return
    if pass_.attempts[-1].outcome != "Running" or gang.facts.step is None:
        return
    known = workload["metadata"].get("annotations") or {}
    since = known.get(COST_TIME_ANNOTATION) or workload["metadata"].get("creationTimestamp")
    period_s = PERIOD_IN_PROGRESS * pass_.settings.progress_seconds
    cost = str(_steps_at_stake(pass_, progress))
    if seconds_since(since, pass_.now) < period_s or known.get(COST_ANNOTATION) == cost:
        return
    annotations = {COST_ANNOTATION: cost, COST_TIME_ANNOTATION: format_time(pass_.now)}
    kind, name, uid = workload["kind"], name_of(workload), str(workload["metadata"]["uid"])
    pass_.actions.append(Annotate(kind, name, uid, annotations))
    if kind == "TrainJob":
        pass_.actions.append(ReportProgress(kind, name, uid, _trainer_status(pass_, progress)))


def _steps_at_stake(pass_: Pass, progress: Progress) -> int:
    """Steps since the last checkpoint, which a preemption would repeat."""
    saved = pass_.checkpoints.latest_step if pass_.checkpoints else None
    return max(0, progress.step - max(saved or 0, pass_.attempts[-1].start_step or 0))


def _trainer_status(pass_: Pass, progress: Progress) -> Manifest:
    """The progress in the words of a TrainJob's ``status.trainerStatus``."""
    metrics = {"loss": progress.loss, "samplesPerSecond": progress.samples_per_second}
    status: Manifest = {
        "lastUpdatedTime": format_time(pass_.now),
        "metrics": [
            {"name": name, "value": value} for name, value in metrics.items() if value is not None
        ],
    }
    if progress.total_steps:
        status["progressPercentage"] = min(100, 100 * progress.step // progress.total_steps)
    if progress.eta_seconds is not None:
        status["estimatedRemainingSeconds"] = progress.eta_seconds
    return status
