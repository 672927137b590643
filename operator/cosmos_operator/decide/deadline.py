"""``spec.runPolicy.activeDeadlineSeconds``: a limit on the time for which a job is active. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.objects import format_time, seconds_since


def check_deadline(pass_: Pass) -> None:
    """Let the job fail if its result is not there in time.

    That of a PostTrainingJob is its published model: what is generated afterwards has no deadline.
    """
    limit = pass_.job.spec.run_policy.active_deadline_seconds
    if limit is None or pass_.is_retrying or pass_.conditions.is_true("Published"):
        return
    before = pass_.previous
    if before.active_since is None and before.active_seconds <= limit:
        return
    remaining_s = limit - _active_s(pass_)
    if remaining_s <= 0:
        message = f"was active for longer than spec.runPolicy.activeDeadlineSeconds={limit}"
        pass_.fail_job("DeadlineExceeded", message)
    elif not pass_.is_suspended:
        pass_.requeue_after(remaining_s)


def active_time(pass_: Pass) -> tuple[int, str | None]:
    """The seconds of activity that are over, and the time since which the job is active now; for the status.

    A job is not active while it is suspended, by people or for lack of memory, or waits in a queue, and once it has
    ended; an InferenceJob, which may have to wait for a training, not before its model is ready. Trying again begins
    at zero.
    """
    before = pass_.previous
    has_begun = pass_.has_training or pass_.conditions.is_true("ModelReady")
    is_active = has_begun and pass_.state not in ("Suspended", "Queued", "Succeeded", "Failed")
    seconds = 0 if pass_.is_retrying else before.active_seconds
    since = None if pass_.is_retrying else before.active_since
    if is_active:
        return seconds, since or format_time(pass_.now)
    if since is not None:
        seconds += round(seconds_since(since, pass_.now))
    return seconds, None


def _active_s(pass_: Pass) -> float:
    before = pass_.previous
    since = before.active_since
    return before.active_seconds + (0.0 if since is None else seconds_since(since, pass_.now))
