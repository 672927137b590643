"""Advances the stages of a job in their order, and sets the condition of each. Pure."""

from __future__ import annotations

from dataclasses import replace

from cosmos_operator.api.status import InferenceResult, Output
from cosmos_operator.decide.conditions import Answer
from cosmos_operator.decide.pass_state import Pass, StageView
from cosmos_operator.decide.stages.other_containers import end_left_over
from cosmos_operator.decide.stages.results import note_result, note_training
from cosmos_operator.decide.stages.stage_jobs import advance_job
from cosmos_operator.decide.training.attempts import Training
from cosmos_operator.kube.objects import parse_time
from cosmos_operator.kube.termination import count_of
from cosmos_operator.plan.backend import Backend
from cosmos_operator.plan.edits import spec_key
from cosmos_operator.plan.stages import CONDITIONS, GENERATE, Stage
from cosmos_worker.errors import EXIT_USER_ERROR
from cosmos_worker.storage.volumes import (
    MODEL_FILE,
    REPORT_FILE,
)

MAX_ITEM_MESSAGE = 1024
NOTHING_TRAINED = (
    "nothing was trained: correct the files; or, as inference items cannot be changed, delete the job and create it "
    "again (what was prepared is used again)"
)
NOTHING_GENERATED = (
    "nothing was generated: correct the files; or, as items cannot be changed, delete the job and create it "
    "again"
)


def advance_stages(pass_: Pass, backend: Backend) -> None:
    """Advance every stage as far as it can go."""
    pass_.outputs = pass_.previous.outputs
    for stage in pass_.stages:
        if stage.kind == "train":
            view = _advance_training(pass_, stage, backend)
        elif stage.kind == "generate":
            view = _advance_inference_item(pass_, stage)
        elif stage.kind == "report":
            view = _advance_report(pass_, stage)
        elif stage.kind == "check-inputs":
            view = _advance_check_of_inputs(pass_, stage)
        else:
            view = _advance_unless_ready(pass_, stage)
        note_result(pass_, stage, view)
        if view.state == "Succeeded":
            pass_.finished_stages.add(stage.name)
            if stage.kind != "train":
                end_left_over(pass_, stage)
        elif view.state == "Failed" and stage.kind not in ("generate", "report"):
            pass_.fail_job(view.reason, view.message)
        elif view.state == "Failed" and stage.kind == "report":
            pass_.fail_job("ReportFailed", f"all videos are there, but not the {view.message}")
        _propose_state(pass_, stage, view)


# --- one function a kind of stage ---------------------------------------------------------------


def _advance_unless_ready(pass_: Pass, stage: Stage) -> StageView:
    """Advance a stage, unless its condition says that its result is there already."""
    known = pass_.conditions.get(CONDITIONS[stage.kind])
    if known is not None and known.status == "True":
        return StageView("Succeeded", known.reason, known.message)
    return _advance_and_set_condition(pass_, stage)


def _advance_and_set_condition(pass_: Pass, stage: Stage) -> StageView:
    condition = CONDITIONS[stage.kind]
    view = advance_job(pass_, stage)
    if view.state == "Succeeded":
        message = view.ending.message if view.ending else ""
        pass_.set_condition(condition, "True", "Ready", message or f"{stage.name} has finished")
        if stage.kind == "publish":
            _add_model_output(pass_, stage, view)
    else:
        answer: Answer = "False" if view.state in ("Failed", "Blocked") else "Unknown"
        pass_.set_condition(condition, answer, view.reason or "InProgress", view.message)
    return view


def _advance_check_of_inputs(pass_: Pass, stage: Stage) -> StageView:
    """Check the inference list before the training; items that are appended after its beginning fail alone.

    A result counts for the specification that it was found for: items that are appended before the training begins
    are checked as well.
    """
    if pass_.previous.attempts or pass_.conditions.is_true("Published"):
        return StageView("Succeeded", "NotNeeded")
    if not pass_.has_training or pass_.conditions.is_current(CONDITIONS[stage.kind]):
        view = _advance_unless_ready(pass_, stage)
    else:
        view = _advance_and_set_condition(pass_, stage)
    if view.state != "Failed" or view.ending is None or view.ending.exit_code != EXIT_USER_ERROR:
        return view
    advice = NOTHING_TRAINED if pass_.has_training else NOTHING_GENERATED
    return replace(view, message=f"{view.message}; {advice}")


def _advance_training(pass_: Pass, stage: Stage, backend: Backend) -> StageView:
    if pass_.conditions.is_true("Published"):
        pass_.carry_over_progress()
        return StageView("Succeeded", "Trained")
    view = Training(pass_, stage, backend).advance()
    note_training(pass_, backend, view)
    if view.state == "Succeeded":
        pass_.set_condition("Running", "False", "Trained", "the training has finished")
        pass_.set_condition("Progressing", "False", "Trained", "the training has finished")
    elif view.reason not in ("Queued", "Running"):
        pass_.set_condition("Running", "False", view.reason, view.message)
    if pass_.conditions.get("Progressing") is None or view.state == "Waiting":
        pass_.set_condition("Progressing", "Unknown", "NotRunning", "the training does not run")
    return view


def _advance_inference_item(pass_: Pass, stage: Stage) -> StageView:
    name = stage.name.removeprefix(GENERATE)
    before = next((one for one in pass_.previous.inference if one.name == name), None)
    if before is not None and before.state == "Succeeded":
        pass_.inference = (*pass_.inference, before)
        return StageView("Succeeded", "Ready")
    view = advance_job(pass_, stage)
    pass_.inference = (*pass_.inference, _inference_result(name, stage, view))
    return view


def _advance_report(pass_: Pass, stage: Stage) -> StageView:
    address = f"{stage.document.target_uri}/{REPORT_FILE}"
    if any(one.name == "report" and one.address == address for one in pass_.previous.outputs):
        return StageView("Succeeded", "Ready")
    view = advance_job(pass_, stage)
    if view.state == "Succeeded":
        _set_output(pass_, Output.model_construct(name="report", address=address))
    return view


# --- parts of the status ------------------------------------------------------------------------


def _propose_state(pass_: Pass, stage: Stage, view: StageView) -> None:
    """Propose a state and a sentence, if the stage does something or is kept from it."""
    if view.state in ("Succeeded", "Failed") or view.reason in ("Waiting", "Suspended", "Failed"):
        return
    if view.state == "Waiting" and pass_.is_suspended:
        return
    if view.reason == "Queued":
        pass_.propose_state("Queued", view.message)
    elif stage.kind == "train":
        pass_.propose_state("Training", view.message or _training_message(pass_))
    elif stage.kind == "publish":
        pass_.propose_state("Publishing", view.message)
    elif stage.kind in ("generate", "report"):
        pass_.propose_state("Generating", view.message)
    else:
        pass_.propose_state("Preparing", view.message)


def _training_message(pass_: Pass) -> str:
    """A running training in a sentence: attempt, step, origin, and what its log notes."""
    attempt = pass_.attempts[-1]
    parts = [f"attempt {attempt.number}"]
    if pass_.progress is not None:
        parts.append(f"step {pass_.progress.summary}")
    if attempt.start_step:
        before = pass_.attempts[-2].outcome if len(pass_.attempts) > 1 else "an earlier run"
        parts.append(f"continued from {attempt.start_step} after {before}")
    if attempt.message:
        parts.append(attempt.message)
    if attempt.spec_key not in (None, spec_key(pass_.training_job)):
        parts.append("an edit of spec waits for the next attempt")
    return ", ".join(parts)


def _add_model_output(pass_: Pass, stage: Stage, view: StageView) -> None:
    document, result = stage.document, (view.ending.result or {}) if view.ending else {}
    published = result.get("step", getattr(document, "step", None))
    step = count_of(published)
    address = f"{document.target_uri}/{MODEL_FILE}"
    _set_output(pass_, Output.model_construct(name="model", address=address, step=step))


def _set_output(pass_: Pass, output: Output) -> None:
    others = tuple(one for one in pass_.outputs if one.name != output.name)
    pass_.outputs = (*others, output)


def _inference_result(name: str, stage: Stage, view: StageView) -> InferenceResult:
    ending = view.ending
    result = (ending.result or {}) if ending else {}

    return InferenceResult.model_construct(
        name=name,
        state="Pending" if view.state == "Waiting" or view.state == "Blocked" else view.state,
        address=stage.document.target_uri if view.state == "Succeeded" else None,
        num_videos=count_of(result.get("videos")),
        num_blocked=count_of(result.get("blocked")),
        num_with_faces=count_of(result.get("with_faces")),
        duration_seconds=_duration_seconds(view),
        message="" if view.state in ("Succeeded", "Running") else view.message[:MAX_ITEM_MESSAGE],
    )


def _duration_seconds(view: StageView) -> int | None:
    status, ending = (view.workload or {}).get("status", {}), view.ending
    start, end = status.get("startTime"), status.get("completionTime")
    if ending is not None and end is None:  # other containers keep the Job from ending
        start, end = ending.start_time, ending.finish_time
    if not start or not end:
        return None
    return round((parse_time(end) - parse_time(start)).total_seconds())
