"""The ends of the stages for the status: result, reason, and the last lines of the worker's log. Pure.

They are written once, when a stage ends, so that they can be read when its pods are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_LABEL
from cosmos_operator.api.status import StageResult
from cosmos_operator.decide.pass_state import Pass, StageView
from cosmos_operator.decide.stages.stage_pods import ended_pods
from cosmos_operator.decide.training.outcomes import COUNTED
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time, name_of
from cosmos_operator.kube.pods import Ending
from cosmos_operator.plan.backend import Backend
from cosmos_operator.plan.stages import Stage

NUM_LINES = {"Succeeded": 3, "Failed": 10, "Retrying": 10}
"""State of a stage → lines of its log that the status keeps."""
MAX_LINE, MAX_TEXT = 200, 1000
"""Characters of a line, and of all lines."""
MAX_MESSAGE = 500
TOLD_OUTCOMES = ("Succeeded", "UserError", "GpuFault", *COUNTED)
"""Outcomes of an attempt after which its log says something about the training."""
LIVED = "OtherContainersLived"
"""Reason of a stage that succeeded in a pod whose other containers had to be ended."""


def note_result(pass_: Pass, stage: Stage, view: StageView) -> None:
    """Take down the end of a stage, unless it is there already."""
    known = pass_.results.get(stage.name)
    if view.state not in ("Succeeded", "Failed") or view.reason in ("NotNeeded", "Trained"):
        return
    if known is not None and known.state == view.state:
        return
    if view.workload is None and view.ending is None:
        return  # its result is known from a condition; how it ended is not
    ending, reason = view.ending, "" if view.state == "Succeeded" else view.reason
    message = ending.message if ending is not None else ""
    if view.state == "Failed":
        message = view.message.removeprefix(f"{stage.name}: ")
    keep_result(pass_, stage, view.state, reason, message, ending, view.workload)


def note_training(pass_: Pass, backend: Backend, view: StageView) -> None:
    """Take down the end of the latest attempt, unless somebody only stopped it or took its nodes away."""
    attempt = next(reversed(pass_.attempts), None)
    if attempt is None or attempt.outcome not in TOLD_OUTCOMES:
        return
    state = "Succeeded" if attempt.outcome == "Succeeded" else "Retrying"
    state = "Failed" if view.state == "Failed" else state
    known = pass_.results.get("train")
    is_known = known is not None and known.finish_time == attempt.finish_time
    if known is not None and is_known and known.state == state:
        return
    labels = {JOB_LABEL: pass_.job.name, ATTEMPT_LABEL: str(attempt.number)}
    names = map(name_of, pass_.observed.pods_with({**labels, **backend.leader_labels}))
    text = next((pass_.observed.logs[n] for n in names if n in pass_.observed.logs), "")
    lines = cut_lines(text.splitlines(), NUM_LINES[state])
    pass_.results["train"] = StageResult.model_construct(
        name="train",
        state=state,
        reason="" if state == "Succeeded" else attempt.outcome,
        message=attempt.message[:MAX_MESSAGE],
        start_time=attempt.start_time,
        finish_time=attempt.finish_time,
        last_lines=lines or (known.last_lines if known is not None and is_known else ()),
    )


def keep_result(
    pass_: Pass,
    stage: Stage,
    state: str,
    reason: str,
    message: str,
    ending: Ending | None,
    workload: Manifest | None = None,
) -> None:
    """Take down the end of a stage.

    Args:
        pass_: the pass.
        stage: the stage.
        state: Succeeded, Failed or Retrying.
        reason: reason of a failure in one word.
        message: result or reason for people.
        ending: the end of its worker, if a pod left a trace.
        workload: its Job; None = whatever the pass has observed of it.
    """
    status = (workload or {}).get("status", {})
    finish_time = (ending.finish_time if ending else None) or status.get("completionTime")
    before = pass_.results.get(stage.name)
    lines = _last_lines(pass_, stage, workload, NUM_LINES[state])
    pass_.results[stage.name] = StageResult.model_construct(
        name=stage.name,
        state=state,
        reason=reason[:128],
        message=message[:MAX_MESSAGE],
        start_time=status.get("startTime") or (ending.start_time if ending else None),
        finish_time=finish_time or format_time(pass_.now),
        last_lines=lines or (before.last_lines[-NUM_LINES[state] :] if before else ()),
    )


def add_note(pass_: Pass, stage: Stage, note: str) -> None:
    """Add to the result of a stage that other containers had to be ended."""
    found = pass_.results.get(stage.name)
    if found is None or note in found.message:
        return
    message = "; ".join(part for part in (found.message, note) if part)
    reason = LIVED if found.state == "Succeeded" else found.reason
    update = {"reason": reason, "message": message[: 2 * MAX_MESSAGE]}
    pass_.results[stage.name] = found.model_copy(update=update)


def _last_lines(
    pass_: Pass, stage: Stage, workload: Manifest | None, limit: int
) -> tuple[str, ...]:
    """Last lines of the log of the pod that ended the stage."""
    logs = pass_.observed.logs
    if workload is None:
        return ()
    ended = list(reversed(ended_pods(pass_, stage, workload)))
    for pod, _ in ended:
        if name_of(pod) in logs:
            return cut_lines(logs[name_of(pod)].splitlines(), limit)
    told = next((ending.lines for _, ending in ended if ending.lines), ())
    return cut_lines(told, limit)


def cut_lines(lines: Sequence[str], limit: int) -> tuple[str, ...]:
    """The last lines that are not blank, as far as they fit."""
    found: list[str] = []
    left = MAX_TEXT
    for line in reversed(lines):
        text = "".join(char if char.isprintable() else " " for char in line).strip()[:MAX_LINE]
        if not text:
            continue
        left -= len(text)
        if left < 0 or len(found) == limit:
            break
        found.append(text)
    return tuple(reversed(found))
