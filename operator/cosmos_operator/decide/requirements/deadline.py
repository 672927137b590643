"""The time that a job has: spec.runPolicy.activeDeadlineSeconds. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.objects import seconds_since


def check_deadline(pass_: Pass) -> None:
    """Let the job fail if its result is not there in time.

    That of a PostTrainingJob is its published model: what is generated afterwards has no deadline. An InferenceJob's
    time begins when its model is ready, since it may have to wait for a training.
    """
    limit = pass_.job.spec.run_policy.active_deadline_seconds
    start = _start_time(pass_)
    if limit is None or start is None or pass_.conditions.is_true("Published"):
        return
    remaining_s = limit - seconds_since(start, pass_.now)
    if remaining_s <= 0:
        message = f"took longer than spec.runPolicy.activeDeadlineSeconds={limit}"
        pass_.fail_job("DeadlineExceeded", message)
    else:
        pass_.requeue_after(remaining_s)


def _start_time(pass_: Pass) -> str | None:
    """Time from which the deadline counts; None if it has not come."""
    if pass_.has_training:
        return pass_.previous.start_time
    ready = pass_.conditions.get("ModelReady")
    return ready.last_transition_time if ready is not None and ready.status == "True" else None
