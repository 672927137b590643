"""The end of a pass: the words for people, the conditions that scripts wait for, events. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cosmos_operator.api.status import PostTrainingJobStatus, State
from cosmos_operator.decide.conditions import Conditions
from cosmos_operator.decide.decision import Decision, Event
from cosmos_operator.decide.pass_state import (
    Draft,
    Failure,
)
from cosmos_operator.decide.times import format_time
from cosmos_operator.errors import InvalidSpec

Manifest = dict[str, Any]
MAX_STATUS_MESSAGE = 4096
MAX_EVENT_MESSAGE = 1000


def summarize(draft: Draft) -> None:
    """Answer Suspended, Succeeded and Failed, and choose the word and the sentence for people."""
    if draft.suspended:
        draft.condition("Suspended", "True", "Requested", "spec.runPolicy.suspend is true")
    else:
        draft.condition("Suspended", "False", "NotRequested")
    _fail_for_inference(draft)
    if draft.failure is not None:
        _failed(draft, draft.failure)
    elif draft.stages and len(draft.done) == len(draft.stages):
        draft.condition("Failed", "False", "Succeeded")
        draft.condition("Succeeded", "True", "Finished", "all stages have finished")
        draft.state, draft.message = "Succeeded", _success_message(draft)
    else:
        draft.condition("Succeeded", "Unknown", "InFlight")
        draft.condition("Failed", "False", "InFlight")
        if draft.suspended:
            draft.state = "Suspended"
            draft.message = _suspended_message(draft)
        draft.say("Pending", "waits for its stages")


def _fail_for_inference(draft: Draft) -> None:
    """Inference items fail alone; the job fails once nothing of it is left to do."""
    failed = [one for one in draft.inference if one.state == "Failed"]
    open_items = [one for one in draft.inference if one.state in ("Pending", "Running")]
    is_published = draft.conditions.is_true("Published")
    if failed and is_published and not open_items and draft.failure is None:
        text = "; ".join(f"{one.name}: {one.message}" for one in failed)
        draft.fail("InferenceFailed", f"the model is published, but inference failed: {text}")


def _failed(draft: Draft, failure: Failure) -> None:
    draft.condition("Succeeded", "False", "Failed", failure.message)
    draft.condition("Failed", "True", failure.reason, failure.message)
    draft.state, draft.message = "Failed", failure.message


def _success_message(draft: Draft) -> str:
    model = next((one.address for one in draft.outputs if one.name == "model"), "")
    videos = sum(one.num_videos or 0 for one in draft.inference)
    blocked = sum(one.num_blocked or 0 for one in draft.inference)
    parts = [
        f"published {model}",
        f"{videos} videos" * bool(videos),
        f"{blocked} blocked" * bool(blocked),
    ]
    return ", ".join(part for part in parts if part)


def _suspended_message(draft: Draft) -> str:
    running = [one for one in draft.attempts if one.outcome == "Suspended" and not one.finish_time]
    step = draft.checkpoints.latest_step if draft.checkpoints else None
    where = f"; continues from step {step}" if step is not None else ""
    return ("saves a checkpoint and stops" if running else "suspended") + where


def build_status(draft: Draft) -> Manifest:
    """The status document."""
    before = draft.previous
    ended = draft.state in ("Succeeded", "Failed")
    status = PostTrainingJobStatus.model_construct(
        observed_generation=int(draft.document["metadata"].get("generation", 0)),
        state=draft.state,
        message=draft.message[:MAX_STATUS_MESSAGE],
        conditions=draft.conditions.all(),
        start_time=before.start_time or format_time(draft.now),
        completion_time=format_time(draft.now) if ended else None,
        progress=draft.progress,
        checkpoints=draft.checkpoints,
        attempts=draft.attempts,
        failed_attempts=draft.failed_attempts,
        inference=draft.inference,
        outputs=draft.outputs,
    )
    return to_document(status)


def to_document(status: PostTrainingJobStatus) -> Manifest:
    """The status as JSON values; what is unknown is left out."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def refuse(
    document: Manifest,
    previous: PostTrainingJobStatus,
    conditions: Conditions,
    error: InvalidSpec,
    now: datetime,
) -> Decision:
    """A job that cannot be carried out, whatever the cluster looks like."""
    message = "; ".join(error.problems)[:MAX_STATUS_MESSAGE]
    conditions.set("Accepted", "False", "InvalidSpec", message)
    conditions.set("Succeeded", "False", "InvalidSpec", message)
    conditions.set("Failed", "True", "InvalidSpec", message)
    state: State = "Failed"
    status = previous.model_copy(
        update={
            "observed_generation": int(document["metadata"].get("generation", 0)),
            "state": state,
            "message": message,
            "conditions": conditions.all(),
            "start_time": previous.start_time or format_time(now),
            "completion_time": format_time(now),
        }
    )
    new = to_document(status)
    return Decision((), new, transition_events(previous, new))


def hold(
    document: Manifest,
    previous: PostTrainingJobStatus,
    conditions: Conditions,
    error: InvalidSpec,
    look_again_s: float,
) -> Decision:
    """A job that was accepted as it was before, or by an earlier version of the operator: what runs goes on."""
    message = "; ".join(error.problems)
    text = (
        f"cannot be carried out as it is now: {message}; what runs goes on; undo the change, or install the version "
        "of the operator that accepted the job"
    )
    conditions.set("Accepted", "False", "NotAdmittedAnyMore", text[:MAX_STATUS_MESSAGE])
    generation = int(document["metadata"].get("generation", 0))
    new = to_document(
        previous.model_copy(
            update={
                "observed_generation": generation,
                "message": text[:MAX_STATUS_MESSAGE],
                "conditions": conditions.all(),
            }
        )
    )
    return Decision((), new, transition_events(previous, new), look_again_s)


# --- events ----------------------------------------------------------------------------------


def transition_events(before: PostTrainingJobStatus, after: Manifest) -> tuple[Event, ...]:
    """One event for each change that a person wants to know of."""
    events = []
    known: dict[str, tuple[str, str]] = {c.type: (c.status, c.reason) for c in before.conditions}
    for condition in after["conditions"]:
        kind, answer, reason = condition["type"], condition["status"], condition["reason"]
        if known.get(kind) == (answer, reason) or not _is_news(kind, condition, known):
            continue
        text = condition.get("message") or kind
        bad = kind == "Failed" or (answer == "False" and kind != "Progressing")
        events.append(Event(reason, f"{kind}: {text}"[:MAX_EVENT_MESSAGE], bad))
    return (*events, *_attempt_events(before, after))


def _is_news(kind: str, condition: Mapping[str, str], known: Mapping[str, tuple[str, str]]) -> bool:
    answer, reason = condition["status"], condition["reason"]
    if kind in ("Succeeded", "Failed"):
        return answer == "True"
    if kind == "Suspended":
        return answer == "True" or kind in known
    if kind == "Running":
        return reason not in ("Waiting", "Starting", "Trained", "Queued", "Stopping", "Failed")
    if kind == "Progressing":
        return reason == "Stalled"
    return answer == "True" or (
        answer == "False" and reason not in ("QuotaPending", "ClaimIsCreated")
    )


def _attempt_events(before: PostTrainingJobStatus, after: Manifest) -> list[Event]:
    known = {attempt.number: attempt.outcome for attempt in before.attempts}
    events = []
    for attempt in after.get("attempts", ()):
        number, outcome = attempt["number"], attempt["outcome"]
        if known.get(number) == outcome:
            continue
        if number not in known:
            start = attempt.get("startStep")
            where = f" from step {start}" if start else ""
            text = f"attempt {number} begins{where} as {attempt['backend']} {attempt['workload']}"
            events.append(Event("AttemptStarted", text))
        if outcome != "Running":
            said = f": {attempt['message']}" if attempt.get("message") else ""
            bad = outcome not in ("Succeeded", "Suspended", "Stopped")
            text = f"attempt {number} ended: {outcome}{said}"
            events.append(Event(f"Attempt{outcome}", text[:MAX_EVENT_MESSAGE], bad))
    return events
