"""Kubernetes Events for the changes between the status of the last pass and the new one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.decide.decision import Event
from cosmos_operator.kube.kinds import Manifest

MAX_EVENT_MESSAGE = 1000
OTHERS_LIVED = "OtherContainersLived"
"""Reason of the event on pods whose other containers had to be ended."""
EXPECTED = ("Accepted", "StorageReady", "Admitted", "InputsReady")
"""Conditions that are true as a rule, which is news only where they were false before."""
EXPECTED_OF_TRAINING = ("Waiting", "Starting", "Trained", "Queued", "Stopping", "Failed")
"""Reasons for which a training does not run that other events tell, or that pass by themselves."""


def transition_events(before: PostTrainingJobStatus, after: Manifest) -> tuple[Event, ...]:
    """One event for each change that a person wants to know of."""
    events = []
    known: dict[str, tuple[str, str]] = {c.type: (c.status, c.reason) for c in before.conditions}
    for condition in after["conditions"]:
        kind, answer, reason = condition["type"], condition["status"], condition["reason"]
        if known.get(kind) == (answer, reason) or not _is_news(kind, condition, known):
            continue
        text = condition.get("message") or kind
        is_bad = kind == "Failed" or (
            answer == "False" and kind not in ("Progressing", "SpecApplied")
        )
        is_bad = is_bad or reason in ("FieldsIgnored", "Refused", "OutOfMemory")
        events.append(Event(reason, f"{kind}: {text}"[:MAX_EVENT_MESSAGE], is_bad))
    return (*_merged(events), *_attempt_events(before, after), *_stage_events(before, after))


def _merged(events: Iterable[Event]) -> list[Event]:
    """Events of one pass that say the same of several conditions, as one."""
    found: dict[tuple[str, bool], list[str]] = {}
    for event in events:
        found.setdefault((event.reason, event.is_warning), []).append(event.message)
    return [
        Event(reason, "; ".join(messages)[:MAX_EVENT_MESSAGE], is_warning)
        for (reason, is_warning), messages in found.items()
    ]


def _stage_events(before: PostTrainingJobStatus, after: Manifest) -> list[Event]:
    """Stages whose pods the operator had to end, or that are tried again because of that."""
    known = {one.name: (one.state, one.reason, one.finish_time) for one in before.stages}
    events = []
    for stage in after.get("stages", ()):
        state, reason = stage["state"], stage.get("reason", "")
        if stage["name"] == "train":
            continue  # its attempts tell
        if known.get(stage["name"]) == (state, reason, stage.get("finishTime")):
            continue
        if state == "Retrying" or (state == "Succeeded" and reason):
            text = f"{stage['name']}: {stage['message']}"[:MAX_EVENT_MESSAGE]
            events.append(Event(reason or "Retrying", text, is_warning=True))
    return events


def _is_news(kind: str, condition: Mapping[str, str], known: Mapping[str, tuple[str, str]]) -> bool:
    """False for changes of a condition that everybody expects, or that another event tells."""
    answer, reason = condition["status"], condition["reason"]
    if kind in ("Ready", "Reconciling", "Stalled"):  # they say what Succeeded and Failed say
        return False
    if kind in ("Succeeded", "Failed"):
        return answer == "True"
    if kind == "Suspended":
        return answer == "True" or kind in known
    if kind == "SpecApplied":
        return answer == "False"
    if kind == "Running":
        return answer == "False" and reason not in EXPECTED_OF_TRAINING
    if kind == "Progressing":
        return reason == "Stalled"
    if answer == "True":
        if reason == "FieldsIgnored":
            return True
        return kind not in EXPECTED or known.get(kind, ("",))[0] == "False"
    return answer == "False" and reason not in ("QuotaPending", "ClaimIsCreated")


def _attempt_events(before: PostTrainingJobStatus, after: Manifest) -> list[Event]:
    known = {attempt.number: attempt.outcome for attempt in before.attempts}
    words = {attempt.number: attempt.message for attempt in before.attempts}
    events = []
    for attempt in after.get("attempts", ()):
        number, outcome = attempt["number"], attempt["outcome"]
        if known.get(number) == outcome:
            message = attempt.get("message", "")
            if outcome != "Running" and message != words[number]:  # its pods had to be ended
                text = f"attempt {number}: {message}"[:MAX_EVENT_MESSAGE]
                events.append(Event(OTHERS_LIVED, text, is_warning=True))
            continue
        if number not in known:
            start = attempt.get("startStep")
            origin = f" from step {start}" if start else ""
            text = f"attempt {number} begins{origin} as {attempt['backend']} {attempt['workload']}"
            events.append(Event("AttemptStarted", text))
        if outcome != "Running":
            detail = f": {attempt['message']}" if attempt.get("message") else ""
            is_bad = outcome not in ("Succeeded", "Suspended", "Stopped", "Edited")
            text = f"attempt {number} ended: {outcome}{detail}"
            events.append(Event(f"Attempt{outcome}", text[:MAX_EVENT_MESSAGE], is_bad))
    return events
