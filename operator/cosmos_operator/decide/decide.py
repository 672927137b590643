"""The whole state machine: a job and what was seen → what to do. Pure and level-triggered.

Every pass walks through all stages anew. What was learned before is read from objects that are still there and, where
those may be gone, from the job's own status: a condition that says that a stage is ready is the record of its result.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.conditions import Conditions
from cosmos_operator.decide.decision import Decision, Delete
from cosmos_operator.decide.observed import Observed
from cosmos_operator.decide.pass_state import Draft
from cosmos_operator.decide.requirements.preflight import (
    check_backend,
    check_queue,
    check_storage,
)
from cosmos_operator.decide.stages.advance import (
    PUBLISHED,
    walk,
)
from cosmos_operator.decide.stages.stage_jobs import SHORT_WAIT_S
from cosmos_operator.decide.status import (
    build_status,
    hold,
    refuse,
    summarize,
    transition_events,
)
from cosmos_operator.decide.times import seconds_since
from cosmos_operator.decide.training.workloads import (
    WORKLOAD_KINDS,
    is_being_deleted,
    read_state,
)
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.settings import Settings

Manifest = dict[str, Any]


def decide(document: Manifest, observed: Observed, now: datetime, settings: Settings) -> Decision:
    """What to do about a job.

    Args:
        document: the PostTrainingJob as the API server has it.
        observed: everything around it.
        now: the time, aware.
        settings: of the installation.
    """
    if "deletionTimestamp" in document["metadata"]:
        return Decision()
    previous = read_status(document)
    generation = int(document["metadata"].get("generation", 0))
    conditions = Conditions(previous.conditions, now, generation)
    if is_finished(previous, generation):
        return _after_the_end(document, previous, observed, now)
    try:
        found = plan_job(document, was_accepted=was_accepted(previous))
    except InvalidSpec as error:
        if was_accepted(previous):
            return hold(document, previous, conditions, error, settings.poll_seconds)
        return refuse(document, previous, conditions, error, now)
    draft = Draft(document, found.job, found.stages, previous, observed, now, settings, conditions)
    _check_deadline(draft)
    backend = check_backend(draft)
    if backend is None:
        _keep(draft)
    else:
        checks = [check_storage(draft), check_queue(draft)]
        draft.is_held = not all(checks)
        walk(draft, backend)
    draft.fail_items(found.wrong_items)
    summarize(draft)
    status = build_status(draft)
    return Decision(
        tuple(draft.actions),
        status,
        transition_events(previous, status),
        draft.requeue_after_s,
    )


def read_status(document: Manifest) -> PostTrainingJobStatus:
    """The status of the last pass; one that this version cannot read counts as none, and is written anew."""
    try:
        return PostTrainingJobStatus.model_validate(document.get("status") or {})
    except ValidationError:
        return PostTrainingJobStatus()


def was_accepted(status: PostTrainingJobStatus) -> bool:
    """Whether the job has been found to be one that can be carried out."""
    accepted = next((c for c in status.conditions if c.type == "Accepted"), None)
    return accepted is not None and accepted.reason != "InvalidSpec"


def is_finished(status: PostTrainingJobStatus, generation: int) -> bool:
    """Whether the job has ended, and nobody has changed it since."""
    ends = [c for c in status.conditions if c.type in ("Succeeded", "Failed")]
    return any(c.status == "True" and c.observed_generation == generation for c in ends)


def _after_the_end(
    document: Manifest, status: PostTrainingJobStatus, observed: Observed, now: datetime
) -> Decision:
    """Stop what still runs, and delete a finished job when its time has come; its files stay."""
    if left_over := _left_over(str(document["metadata"]["uid"]), observed):
        return Decision(left_over, requeue_after_s=SHORT_WAIT_S)
    policy = document.get("spec", {}).get("runPolicy") or {}
    ttl = policy.get("ttlSecondsAfterFinished")
    if ttl is None or status.completion_time is None:
        return Decision()
    left = ttl - seconds_since(status.completion_time, now)
    if left > 0:
        return Decision(requeue_after_s=left)
    metadata = document["metadata"]
    why = f"spec.runPolicy.ttlSecondsAfterFinished={ttl}"
    return Decision((Delete(document["kind"], metadata["name"], metadata["uid"], why),))


def _left_over(uid: str, observed: Observed) -> tuple[Delete, ...]:
    """Workloads that run on for nobody: a stage that is shared with another job goes on."""
    found = []
    for (kind, name), one in observed.objects.items():
        if kind not in WORKLOAD_KINDS or is_being_deleted(one):
            continue
        owners = {owner["uid"] for owner in one["metadata"].get("ownerReferences", ())}
        if owners == {uid} and read_state(one).state in ("Active", "Suspended"):
            found.append(Delete(kind, name, one["metadata"]["uid"], "the job has ended"))
    return tuple(found)


def _check_deadline(draft: Draft) -> None:
    """The deadline is for the model: what is asked for after that, at any later time, has none."""
    limit = draft.job.spec.run_policy.active_deadline_seconds
    if limit is None or draft.previous.start_time is None or draft.conditions.is_true(PUBLISHED):
        return
    left = limit - seconds_since(draft.previous.start_time, draft.now)
    if left <= 0:
        draft.fail(
            "DeadlineExceeded", f"took longer than spec.runPolicy.activeDeadlineSeconds={limit}"
        )
    else:
        draft.look_again(left)


def _keep(draft: Draft) -> None:
    """Carry over what is known when a pass cannot go through the stages."""
    draft.attempts = draft.previous.attempts
    draft.failed_attempts = draft.previous.failed_attempts
    draft.progress = draft.previous.progress
    draft.checkpoints = draft.previous.checkpoints
    draft.inference = draft.previous.inference
    draft.outputs = draft.previous.outputs
