"""The PostTrainingJob whose model an InferenceJob uses: waited for, and remembered once it has published. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.requirements.machines import accept
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_duration, name_of, seconds_since
from cosmos_operator.plan.job_plan import ModelObstacle

ABSENCE_S = 300
"""Seconds from the creation of an InferenceJob within which the PostTrainingJob that it names must exist."""


def wait_for_model(pass_: Pass, obstacle: ModelObstacle) -> None:
    """Say what the job waits for, and fail it if it names a job that does not come. Sets Accepted and ModelReady."""
    message = obstacle.message
    accept(pass_, "its model is waited for")
    if obstacle.reason == "JobNotFound":
        created = pass_.document["metadata"].get("creationTimestamp")
        remaining_s = ABSENCE_S - seconds_since(created, pass_.now)
        if remaining_s <= 0:
            pass_.fail_job("JobNotFound", f"{message}; create that job")
        else:
            pass_.requeue_after(remaining_s + 1)
            deadline = format_duration(ABSENCE_S)
            message += f"; create it within {deadline} of this job, which otherwise fails"
    pass_.set_condition("ModelReady", "False", obstacle.reason, message)
    pass_.inference = pass_.previous.inference
    pass_.propose_state("Pending", message)
    pass_.requeue_after(pass_.settings.poll_seconds)


def keep_record(pass_: Pass, record: Manifest) -> None:
    """Create the record of the PostTrainingJob, unless it is there."""
    if pass_.observed.get("ConfigMap", name_of(record)) is None:
        pass_.create(record)
