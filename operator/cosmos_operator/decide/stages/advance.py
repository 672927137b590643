"""Through the stages of a job in their order, answering the questions that a user asks of each. Pure."""

from __future__ import annotations

from dataclasses import replace

from cosmos_operator.api.status import ConditionType, InferenceResult, Output
from cosmos_operator.decide.conditions import Answer
from cosmos_operator.decide.pass_state import Draft
from cosmos_operator.decide.stages.stage_jobs import (
    StageView,
    advance,
)
from cosmos_operator.decide.times import parse_time
from cosmos_operator.decide.training.training import Training
from cosmos_operator.plan.backend import Backend
from cosmos_operator.plan.stages import Stage
from cosmos_worker.errors import EXIT_USER_ERROR
from cosmos_worker.storage.volumes import (
    MODEL_FILE,
    REPORT_FILE,
)

QUESTIONS: dict[str, ConditionType] = {
    "fetch-model": "ModelReady",
    "prepare-dataset": "DatasetReady",
    "embed-text": "EmbeddingsReady",
    "cache-latents": "LatentsReady",
    "check-inputs": "InputsReady",
    "publish": "Published",
}
"""The condition that answers for each stage, and that records its result."""
PUBLISHED: ConditionType = "Published"
NOTHING_TRAINED = (
    "nothing was trained: correct it, delete the job and create it again (inference items cannot be changed; what was "
    "prepared is used again)"
)


def walk(draft: Draft, backend: Backend) -> None:
    """Advance every stage as far as it can go."""
    draft.outputs = draft.previous.outputs
    views = {}
    for stage in draft.stages:
        if stage.kind == "train":
            view = _train(draft, stage, backend)
        elif stage.kind == "generate":
            view = _generate(draft, stage)
        elif stage.kind == "report":
            view = _report(draft, stage)
        elif stage.kind == "check-inputs":
            view = _check_inputs(draft, stage)
        else:
            view = _prepare(draft, stage)
        views[stage.name] = view
        if view.state == "Succeeded":
            draft.done.add(stage.name)
        elif view.state == "Failed" and stage.kind not in ("generate", "report"):
            draft.fail(view.reason, view.message)
        _tell(draft, stage, view)


def _tell(draft: Draft, stage: Stage, view: StageView) -> None:
    """The first stage that does something, or is kept from it, is what people read about."""
    if view.state in ("Succeeded", "Failed") or view.reason in ("Waiting", "Suspended", "Failed"):
        return
    if view.state == "Waiting" and draft.suspended:
        return
    if view.reason == "Queued":
        draft.say("Queued", view.message)
    elif stage.kind == "train":
        draft.say("Training", view.message or _training_message(draft))
    elif stage.kind == "publish":
        draft.say("Publishing", view.message)
    elif stage.kind in ("generate", "report"):
        draft.say("Generating", view.message)
    else:
        draft.say("Preparing", view.message)


def _training_message(draft: Draft) -> str:
    attempt = draft.attempts[-1]
    parts = [f"attempt {attempt.number}"]
    if draft.progress is not None:
        parts.append(f"step {draft.progress.summary}")
    if attempt.start_step:
        before = draft.attempts[-2].outcome if len(draft.attempts) > 1 else "an earlier run"
        parts.append(f"continued from {attempt.start_step} after {before}")
    if attempt.message:
        parts.append(attempt.message)
    return ", ".join(parts)


# --- one function a kind ---------------------------------------------------------------------


def _prepare(draft: Draft, stage: Stage) -> StageView:
    """A stage whose condition says that it is ready is not looked at again."""
    known = draft.conditions.get(QUESTIONS[stage.kind])
    if known is not None and known.status == "True":
        return StageView("Succeeded", known.reason, known.message)
    return _ask(draft, stage)


def _ask(draft: Draft, stage: Stage) -> StageView:
    """Advance a stage and answer its question."""
    question = QUESTIONS[stage.kind]
    view = advance(draft, stage)
    if view.state == "Succeeded":
        said = view.ending.message if view.ending else ""
        draft.condition(question, "True", "Ready", said or f"{stage.name} has finished")
        if stage.kind == "publish":
            _published(draft, stage, view)
    else:
        answer: Answer = "False" if view.state in ("Failed", "Blocked") else "Unknown"
        draft.condition(question, answer, view.reason or "InProgress", view.message)
    return view


def _check_inputs(draft: Draft, stage: Stage) -> StageView:
    """Only a training that has not begun waits for it: items that are appended later fail alone.

    An answer is one about the job as it was then: items that are appended before the training are checked as well.
    """
    if draft.previous.attempts or draft.conditions.is_true(PUBLISHED):
        return StageView("Succeeded", "NotNeeded")
    is_of_now = draft.conditions.is_of_now(QUESTIONS[stage.kind])
    view = _prepare(draft, stage) if is_of_now else _ask(draft, stage)
    if view.state != "Failed" or view.ending is None or view.ending.exit_code != EXIT_USER_ERROR:
        return view
    return replace(view, message=f"{view.message}; {NOTHING_TRAINED}")


def _published(draft: Draft, stage: Stage, view: StageView) -> None:
    document, result = stage.document, (view.ending.result or {}) if view.ending else {}
    asked = result.get("step", getattr(document, "step", None))
    step = asked if isinstance(asked, int) else None
    address = f"{document.target_uri}/{MODEL_FILE}"
    _output(draft, Output.model_construct(name="model", address=address, step=step))


def _output(draft: Draft, output: Output) -> None:
    others = tuple(one for one in draft.outputs if one.name != output.name)
    draft.outputs = (*others, output)


def _train(draft: Draft, stage: Stage, backend: Backend) -> StageView:
    if draft.conditions.is_true(PUBLISHED):
        draft.attempts = draft.previous.attempts
        draft.failed_attempts = draft.previous.failed_attempts
        draft.progress, draft.checkpoints = draft.previous.progress, draft.previous.checkpoints
        return StageView("Succeeded", "Trained")
    view = Training(draft, stage, backend).advance()
    if view.state == "Succeeded":
        draft.condition("Running", "False", "Trained", "the training has finished")
        draft.condition("Progressing", "False", "Trained", "the training has finished")
    elif view.reason not in ("Queued", "Running"):
        draft.condition("Running", "False", view.reason, view.message)
    if draft.conditions.get("Progressing") is None or view.state == "Waiting":
        draft.condition("Progressing", "Unknown", "NotRunning", "the training does not run")
    return view


def _generate(draft: Draft, stage: Stage) -> StageView:
    name = stage.name.removeprefix("generate-")
    before = next((one for one in draft.previous.inference if one.name == name), None)
    if before is not None and before.state == "Succeeded":
        draft.inference = (*draft.inference, before)
        return StageView("Succeeded", "Ready")
    view = advance(draft, stage)
    draft.inference = (*draft.inference, _inference_result(name, stage, view))
    return view


def _inference_result(name: str, stage: Stage, view: StageView) -> InferenceResult:
    ending = view.ending
    result = (ending.result or {}) if ending else {}

    def count(name: str) -> int | None:
        value = result.get(name)
        return value if isinstance(value, int) else None

    return InferenceResult.model_construct(
        name=name,
        state="Pending" if view.state == "Waiting" or view.state == "Blocked" else view.state,
        address=stage.document.target_uri if view.state == "Succeeded" else None,
        num_videos=count("videos"),
        num_blocked=count("blocked"),
        num_with_faces=count("with_faces"),
        duration_seconds=_duration(view),
        message="" if view.state in ("Succeeded", "Running") else view.message[:1024],
    )


def _duration(view: StageView) -> int | None:
    status = (view.workload or {}).get("status", {})
    start, end = status.get("startTime"), status.get("completionTime")
    if not start or not end:
        return None
    return round((parse_time(end) - parse_time(start)).total_seconds())


def _report(draft: Draft, stage: Stage) -> StageView:
    address = f"{stage.document.target_uri}/{REPORT_FILE}"
    if any(one.name == "report" and one.address == address for one in draft.previous.outputs):
        return StageView("Succeeded", "Ready")
    view = advance(draft, stage)
    if view.state == "Succeeded":
        _output(draft, Output.model_construct(name="report", address=address))
    return view
