"""The PostTrainingJob whose model an InferenceJob uses: waited for, and remembered once it has published. Pure."""

from __future__ import annotations

from cosmos_operator.decide.conditions import Answer
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.requirements.machines import accept
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_duration, format_time, name_of, seconds_since
from cosmos_operator.plan.job_plan import ModelObstacle

ABSENCE_S = 300
"""Seconds for which the PostTrainingJob that an InferenceJob names may be absent."""


def wait_for_model(pass_: Pass, obstacle: ModelObstacle) -> None:
    """Say what the job waits for, and fail it if it names a job that does not come. Sets Accepted and ModelReady."""
    message = obstacle.message
    accept(pass_, "its model is waited for")
    if obstacle.reason == "JobNotFound":
        remaining_s = ABSENCE_S - seconds_since(_absent_since(pass_), pass_.now)
        if remaining_s <= 0:
            pass_.fail_job("JobNotFound", f"{message}; create that job")
        else:
            pass_.requeue_after(remaining_s + 1)
            deadline = format_duration(ABSENCE_S)
            message += f"; create it within {deadline}, otherwise this job fails"
    # Unknown stands for absence, since a condition's time changes with its status only
    status: Answer = "Unknown" if obstacle.reason == "JobNotFound" else "False"
    pass_.set_condition("ModelReady", status, obstacle.reason, message)
    pass_.inference = tuple(  # what has failed is tried again once the model is there
        one for one in pass_.previous.inference if not (pass_.is_retrying and one.state == "Failed")
    )
    pass_.propose_state("Pending", message)
    pass_.requeue_after(pass_.settings.poll_seconds)


def _absent_since(pass_: Pass) -> str:
    """Time since which there has been no PostTrainingJob of the name: now, if it was there a moment ago."""
    known = pass_.conditions.get("ModelReady")
    if known is None:
        return str(pass_.document["metadata"]["creationTimestamp"])
    return known.last_transition_time if known.status == "Unknown" else format_time(pass_.now)


def keep_record(pass_: Pass, record: Manifest) -> None:
    """Create the record of the PostTrainingJob, unless it is there."""
    if pass_.observed.get("ConfigMap", name_of(record)) is None:
        pass_.create(record)
