"""``spec.runPolicy.retry``: a counter that lets a failed job go on where it was when it is raised. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.find_job import find_job
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, read_state


def asks_for_retry(previous: PostTrainingJobStatus, document: Mapping[str, Any]) -> bool:
    """True if a job's counter has been raised since it last tried again; a new job has nothing to try again."""
    wanted = ((document.get("spec") or {}).get("runPolicy") or {}).get("retry") or 0
    if previous.start_time is None or not isinstance(wanted, int):
        return False
    return wanted > (previous.retry or 0)


def honour_retry(pass_: Pass) -> None:
    """Begin failed stages anew and forgive the attempts so far, if the counter has been raised.

    It counts as honoured once no Job of a failed stage is left, so that an operator that ends in between goes on.
    """
    pass_.retry, pass_.forgiven_attempts = pass_.previous.retry, pass_.previous.forgiven_attempts
    if pass_.previous.start_time is None:
        pass_.retry = pass_.job.spec.run_policy.retry
    if not asks_for_retry(pass_.previous, pass_.document):
        return
    pass_.is_retrying = True
    failed = _failed_jobs(pass_)
    for job in failed:
        pass_.delete(job, f"spec.runPolicy.retry={pass_.job.spec.run_policy.retry}")
    if failed:
        pass_.requeue_after(SHORT_WAIT_S)
    else:
        pass_.retry = pass_.job.spec.run_policy.retry


def retry_advice(pass_: Pass) -> str:
    """The edit that lets a failed job go on, as a sentence."""
    policy = pass_.job.spec.run_policy
    wanted = max(policy.retry, pass_.retry or 0) + 1
    return f"once that is mended, spec.runPolicy.retry={wanted} lets the job go on where it was"


def _failed_jobs(pass_: Pass) -> list[Manifest]:
    """Jobs of stages other than the training that have failed for this job."""
    found = []
    for stage in pass_.stages:
        job = None if stage.kind == "train" else find_job(pass_, stage)
        if job is None or not (stage.is_shared or pass_.owns(job)):
            continue
        if is_being_deleted(job) or read_state(job).state == "Failed":
            found.append(job)
    return found
