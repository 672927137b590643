"""The whole state machine: the plan of a job and the state of the cluster → what to do. Pure and level-triggered.

Every pass goes through all stages anew. What earlier passes learned is read from objects that are still there and,
where those may be gone, from the job's own status: a condition that says that a stage is ready records its result.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.after_the_end import decide_after_the_end
from cosmos_operator.decide.conditions import Conditions
from cosmos_operator.decide.deadline import check_deadline
from cosmos_operator.decide.decision import Decision
from cosmos_operator.decide.events import transition_events
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.requirements.machines import check_backend
from cosmos_operator.decide.requirements.model_job import keep_record, wait_for_model
from cosmos_operator.decide.requirements.published_name import check_published_name
from cosmos_operator.decide.requirements.queueing import check_queue
from cosmos_operator.decide.requirements.starting_point import check_starting_point
from cosmos_operator.decide.requirements.storage import check_storage
from cosmos_operator.decide.retry import asks_for_retry, honour_retry
from cosmos_operator.decide.stages.advance import advance_stages
from cosmos_operator.decide.status import (
    build_status,
    generation_of,
    status_after_the_end,
    status_of_invalid_job,
    status_of_job_no_longer_valid,
)
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted
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
    if is_finished(plan.previous, plan.document):
        decision = decide_after_the_end(plan, observed, now, settings)
        return replace(decision, status=status_after_the_end(plan))
    conditions = Conditions(plan.previous.conditions, now, generation)
    if plan.job is None:
        return _decide_on_invalid_job(plan, conditions, now, settings)
    pass_ = Pass(
        plan.document,
        plan.job,
        plan.stages,
        plan.object_names,
        plan.previous,
        observed,
        now,
        settings,
        conditions,
    )
    pass_.ignored_fields = plan.ignored_fields
    pass_.refused_edit = plan.refused_edit
    pass_.results = {one.name: one for one in plan.previous.stages}
    honour_retry(pass_)
    if plan.obstacle is not None:
        wait_for_model(pass_, plan.obstacle)
    else:
        _advance(pass_, plan)
    pass_.fail_items(plan.wrong_items)
    status = build_status(pass_)
    events = transition_events(plan.previous, status)
    return Decision(tuple(pass_.actions), status, events, pass_.requeue_after_s, pass_.awaits_kind)


def _advance(pass_: Pass, plan: JobPlan) -> None:
    """Check what the job needs, then bring its stages forward."""
    check_deadline(pass_)
    if pass_.has_training:
        check_starting_point(pass_)
    is_name_free = not pass_.has_training or check_published_name(pass_)
    backend = check_backend(pass_) if is_name_free else None
    if backend is None:
        _carry_over_results(pass_)
        return
    if plan.record is not None:
        keep_record(pass_, plan.record)
    checks = [check_storage(pass_), check_queue(pass_)]
    pass_.lacks_requirements = not all(checks)
    advance_stages(pass_, backend)


def is_finished(status: PostTrainingJobStatus, document: Manifest) -> bool:
    """True if the job has succeeded, or has failed and is not told to try again; no other edit changes that."""
    ends = {one.type for one in status.conditions if one.status == "True"}
    return "Succeeded" in ends or ("Failed" in ends and not asks_for_retry(status, document))


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


def _carry_over_results(pass_: Pass) -> None:
    """Take over from the last pass what this one cannot find out, since it does not go through the stages."""
    pass_.carry_over_progress()
    pass_.inference, pass_.outputs = pass_.previous.inference, pass_.previous.outputs
