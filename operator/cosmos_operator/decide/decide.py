"""The whole state machine: the plan of a job and the state of the cluster → what to do. Pure and level-triggered.

Every pass goes through all stages anew. What earlier passes learned is read from objects that are still there and,
where those may be gone, from the job's own status: a condition that says that a stage is ready records its result.
"""

from __future__ import annotations

from datetime import datetime

from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.conditions import Conditions
from cosmos_operator.decide.decision import Decision, Delete
from cosmos_operator.decide.events import transition_events
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Pass
from cosmos_operator.decide.requirements.deadline import check_deadline
from cosmos_operator.decide.requirements.machines import check_backend
from cosmos_operator.decide.requirements.model_job import keep_record, wait_for_model
from cosmos_operator.decide.requirements.queueing import check_queue
from cosmos_operator.decide.requirements.storage import check_storage
from cosmos_operator.decide.stages.advance import advance_stages
from cosmos_operator.decide.status import (
    build_status,
    generation_of,
    status_after_the_end,
    status_of_invalid_job,
    status_of_job_no_longer_valid,
)
from cosmos_operator.kube.kinds import WORKLOAD_KINDS, Manifest
from cosmos_operator.kube.objects import is_being_deleted, owner_uids, read_state, seconds_since
from cosmos_operator.kube.observed import Observed
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.settings import Settings


def decide(plan: JobPlan, observed: Observed, now: datetime, settings: Settings) -> Decision:
    """Decide what to do about a job.

    Args:
        plan: the job and its stages.
        observed: the state of the cluster around it.
        now: the time, with its time zone.
        settings: settings of the installation.
    """
    if is_being_deleted(plan.document):
        return Decision()
    generation = generation_of(plan.document)
    if is_finished(plan.previous):
        return _decide_after_the_end(plan, observed, now)
    conditions = Conditions(plan.previous.conditions, now, generation)
    if plan.job is None:
        return _decide_on_invalid_job(plan, conditions, now, settings)
    pass_ = Pass(
        plan.document, plan.job, plan.stages, plan.previous, observed, now, settings, conditions
    )
    if plan.obstacle is not None:
        wait_for_model(pass_, plan.obstacle)
    else:
        _advance(pass_, plan)
    pass_.fail_items(plan.wrong_items)
    status = build_status(pass_)
    events = transition_events(plan.previous, status)
    return Decision(tuple(pass_.actions), status, events, pass_.requeue_after_s)


def _advance(pass_: Pass, plan: JobPlan) -> None:
    """Check what the job needs, then bring its stages forward."""
    check_deadline(pass_)
    backend = check_backend(pass_)
    if backend is None:
        _carry_over_results(pass_)
        return
    if plan.record is not None:
        keep_record(pass_, plan.record)
    checks = [check_storage(pass_), check_queue(pass_)]
    pass_.lacks_requirements = not all(checks)
    advance_stages(pass_, backend)


def is_finished(status: PostTrainingJobStatus) -> bool:
    """True if the job has ended; this is final, whatever is edited afterwards."""
    return any(
        one.status == "True" for one in status.conditions if one.type in ("Succeeded", "Failed")
    )


def _decide_on_invalid_job(
    plan: JobPlan, conditions: Conditions, now: datetime, settings: Settings
) -> Decision:
    """Fail a new job; leave one that was accepted before alone, whatever an edit or an upgrade makes of it."""
    if plan.previous.was_accepted:
        status = status_of_job_no_longer_valid(plan, conditions)
        events = transition_events(plan.previous, status)
        return Decision((), status, events, settings.poll_seconds)
    status = status_of_invalid_job(plan, conditions, now)
    return Decision((), status, transition_events(plan.previous, status))


def _decide_after_the_end(plan: JobPlan, observed: Observed, now: datetime) -> Decision:
    """Stop what still runs, and delete a finished job when its time has come; its files stay."""
    metadata, previous = plan.document["metadata"], plan.previous
    status = status_after_the_end(plan)
    if left_over := _delete_left_overs(str(metadata["uid"]), observed):
        return Decision(left_over, status, requeue_after_s=SHORT_WAIT_S)
    policy = plan.document.get("spec", {}).get("runPolicy") or {}
    ttl = policy.get("ttlSecondsAfterFinished")
    if ttl is None or previous.completion_time is None:
        return Decision(status=status)
    remaining_s = ttl - seconds_since(previous.completion_time, now)
    if remaining_s > 0:
        return Decision(status=status, requeue_after_s=remaining_s)
    reason = f"spec.runPolicy.ttlSecondsAfterFinished={ttl}"
    return Decision((Delete(plan.document["kind"], metadata["name"], metadata["uid"], reason),))


def _delete_left_overs(uid: str, observed: Observed) -> tuple[Delete, ...]:
    """Delete workloads that still run for this job alone; a stage that another job shares goes on."""

    def is_left_over(kind: str, one: Manifest) -> bool:
        if kind not in WORKLOAD_KINDS or is_being_deleted(one) or owner_uids(one) != {uid}:
            return False
        return read_state(one).state in ("Active", "Suspended")

    return tuple(
        Delete(kind, name, one["metadata"]["uid"], "the job has ended")
        for (kind, name), one in observed.objects.items()
        if is_left_over(kind, one)
    )


def _carry_over_results(pass_: Pass) -> None:
    """Take over from the last pass what this one cannot find out, since it does not go through the stages."""
    pass_.carry_over_progress()
    pass_.inference, pass_.outputs = pass_.previous.inference, pass_.previous.outputs
