"""The status that a pass writes: its last conditions, the state and the sentence for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cosmos_operator.api.base import INFERENCE_KIND
from cosmos_operator.api.status import TRAINING_FIELDS, PostTrainingJobStatus, TrainingRun
from cosmos_operator.decide.conditions import Conditions
from cosmos_operator.decide.deadline import active_time
from cosmos_operator.decide.pass_state import Failure, Pass
from cosmos_operator.decide.readiness import set_failed, set_in_progress, set_succeeded
from cosmos_operator.decide.retry import retry_advice
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time
from cosmos_operator.plan.edits import describe_run, spec_key
from cosmos_operator.plan.job_plan import JobPlan

MAX_STATUS_MESSAGE = 4096


def build_status(pass_: Pass) -> Manifest:
    """The status of a job that can be carried out, after its stages were advanced."""
    _set_final_conditions(pass_)
    before = pass_.previous
    has_ended = pass_.state in ("Succeeded", "Failed")
    active_seconds, active_since = active_time(pass_)
    status = PostTrainingJobStatus.model_construct(
        observed_generation=generation_of(pass_.document),
        state=pass_.state,
        message=pass_.message[:MAX_STATUS_MESSAGE],
        conditions=pass_.conditions.all(),
        start_time=before.start_time or format_time(pass_.now),
        completion_time=format_time(pass_.now) if has_ended else None,
        progress=pass_.progress,
        checkpoints=pass_.checkpoints,
        attempts=pass_.attempts,
        failed_attempts=pass_.failed_attempts,
        gpu_hours=pass_.gpu_hours,
        active_seconds=active_seconds,
        active_since=active_since,
        retry=pass_.retry,
        forgiven_attempts=pass_.forgiven_attempts,
        run=_run_of(pass_),
        inference=pass_.inference,
        stages=tuple(pass_.results[s.name] for s in pass_.stages if s.name in pass_.results),
        outputs=pass_.outputs,
    )
    return _to_document(status, pass_.document)


def _run_of(pass_: Pass) -> TrainingRun | None:
    """The training run that has begun."""
    if not pass_.attempts:
        return pass_.previous.run
    return describe_run(pass_.training_job, tuple(pass_.stages))


def status_of_invalid_job(plan: JobPlan, conditions: Conditions, now: datetime) -> Manifest:
    """The status of a job that cannot be carried out, whatever the cluster looks like: it has failed."""
    wanted = _wanted_retry(plan.document)
    text = "; ".join(plan.problems)[: MAX_STATUS_MESSAGE - 200]
    message = f"{text}; correct it and set spec.runPolicy.retry={wanted + 1}, or delete the job and create it again"
    conditions.set("Accepted", "False", "InvalidSpec", message)
    conditions.set("Succeeded", "False", "InvalidSpec", message)
    conditions.set("Failed", "True", "InvalidSpec", message)
    set_failed(conditions, "InvalidSpec", message)
    status = plan.previous.model_copy(
        update={
            "observed_generation": generation_of(plan.document),
            "state": "Failed",
            "message": message,
            "conditions": conditions.all(),
            "start_time": plan.previous.start_time or format_time(now),
            "completion_time": format_time(now),
            "retry": wanted,
        }
    )
    return _to_document(status, plan.document)


def _wanted_retry(document: Manifest) -> int:
    policy = (document.get("spec") or {}).get("runPolicy")
    wanted = policy.get("retry") if isinstance(policy, dict) else None
    return wanted if isinstance(wanted, int) and wanted >= 0 else 0


def status_of_job_no_longer_valid(plan: JobPlan, conditions: Conditions) -> Manifest:
    """The status of a job that was accepted once and would be refused now: what runs goes on."""
    text = (
        f"cannot be carried out as it is now: {'; '.join(plan.problems)}; what runs goes on; undo the change, or "
        "install the version of the operator that accepted the job"
    )[:MAX_STATUS_MESSAGE]
    conditions.set("Accepted", "False", "NotAdmittedAnyMore", text)
    status = plan.previous.model_copy(
        update={
            "observed_generation": generation_of(plan.document),
            "message": text,
            "conditions": conditions.all(),
        }
    )
    return _to_document(status, plan.document)


def status_after_the_end(plan: JobPlan) -> Manifest | None:
    """The status of a job that was edited after its end, which says that the edit was seen; None if it was not."""
    generation = generation_of(plan.document)
    if plan.previous.observed_generation == generation:
        return None
    status = plan.previous.model_copy(update={"observed_generation": generation})
    return _to_document(status, plan.document)


def generation_of(document: Manifest) -> int:
    """Generation of a job: it grows with each change of its specification."""
    return int(document["metadata"].get("generation", 0))


def _to_document(status: PostTrainingJobStatus, job: Manifest) -> Manifest:
    """The status as JSON values; what is unknown, or not of the job's kind, is left out."""
    excluded = set(TRAINING_FIELDS) if job.get("kind") == INFERENCE_KIND else None
    return status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=excluded)


# --- parts ------------------------------------------------------------------------------------


def _set_final_conditions(pass_: Pass) -> None:
    """Set Suspended, Succeeded, Failed and those of readiness, and choose the state and the sentence for people."""
    if pass_.has_training:
        _set_spec_applied(pass_)
    if pass_.is_suspended:
        pass_.set_condition("Suspended", "True", "Requested", "spec.runPolicy.suspend is true")
    elif pass_.hold is not None and pass_.failure is None:
        pass_.set_condition("Suspended", "True", pass_.hold.reason, pass_.hold.message)
    else:
        pass_.set_condition("Suspended", "False", "NotRequested")
    _fail_for_inference(pass_)
    if pass_.failure is not None:
        _set_failed(pass_, pass_.failure)
    elif pass_.stages and len(pass_.finished_stages) == len(pass_.stages):
        pass_.set_condition("Failed", "False", "Succeeded")
        pass_.set_condition("Succeeded", "True", "Finished", "all stages have finished")
        set_succeeded(pass_.conditions)
        pass_.state, pass_.message = "Succeeded", _success_message(pass_)
    else:
        pass_.set_condition("Succeeded", "Unknown", "InFlight")
        pass_.set_condition("Failed", "False", "InFlight")
        set_in_progress(pass_.conditions, _reason_to_stop(pass_))
        if pass_.is_suspended:
            pass_.state, pass_.message = "Suspended", _suspended_message(pass_)
        elif pass_.hold is not None:
            pass_.state, pass_.message = "Suspended", pass_.hold.message
        pass_.propose_state("Pending", "waits for its stages")


def _reason_to_stop(pass_: Pass) -> str:
    """The reason for which the job is suspended; empty if it is not."""
    if pass_.is_suspended:
        return "spec.runPolicy.suspend is true"
    return "" if pass_.hold is None else pass_.hold.message


def _fail_for_inference(pass_: Pass) -> None:
    """Let the job fail for inference items that failed, once no other item is left to do."""
    failed = [one for one in pass_.inference if one.state == "Failed"]
    open_items = [one for one in pass_.inference if one.state in ("Pending", "Running")]
    is_trained = not pass_.has_training or pass_.conditions.is_true("Published")
    if failed and is_trained and not open_items and pass_.failure is None:
        text = "; ".join(f"{one.name}: {one.message}" for one in failed)
        before = "the model is published, but inference failed: " if pass_.has_training else ""
        pass_.fail_job("InferenceFailed", f"{before}{text}")


def _set_failed(pass_: Pass, failure: Failure) -> None:
    message = f"{failure.message[: MAX_STATUS_MESSAGE - 200]}; {retry_advice(pass_)}"
    pass_.set_condition("Succeeded", "False", "Failed", message)
    pass_.set_condition("Failed", "True", failure.reason, message)
    set_failed(pass_.conditions, failure.reason, message)
    pass_.state, pass_.message = "Failed", message


def _set_spec_applied(pass_: Pass) -> None:
    """Say whether the attempt that runs has what spec asks for now."""
    last = pass_.attempts[-1] if pass_.attempts else None
    is_running = last is not None and last.outcome == "Running"
    if pass_.refused_edit:
        pass_.set_condition("SpecApplied", "False", "Refused", pass_.refused_edit)
    elif is_running and last and last.spec_key not in (None, spec_key(pass_.training_job)):
        message = (
            f"spec has been changed since attempt {last.number} began, which goes on as it is; the change counts from "
            "attempt {next} on; to have it now, set spec.runPolicy.suspend to true and, once it has stopped, to false"
        ).replace("{next}", str(last.number + 1))
        pass_.set_condition("SpecApplied", "False", "NextAttempt", message)
    else:
        pass_.set_condition("SpecApplied", "True", "Applied")


def _success_message(pass_: Pass) -> str:
    model = next((one.address for one in pass_.outputs if one.name == "model"), "")
    num_videos = _sum([one.num_videos for one in pass_.inference])
    num_blocked = _sum([one.num_blocked for one in pass_.inference])
    parts = [
        f"published {model}" * bool(model),
        f"{num_videos} videos" * bool(num_videos),
        f"{num_blocked} blocked" * bool(num_blocked),
    ]
    return ", ".join(part for part in parts if part)


def _sum(counts: Sequence[int | None]) -> int:
    return sum(count or 0 for count in counts)


def _suspended_message(pass_: Pass) -> str:
    stopping = [one for one in pass_.attempts if one.outcome == "Suspended" and not one.finish_time]
    step = pass_.checkpoints.latest_step if pass_.checkpoints else None
    continuation = f"; continues from step {step}" if step is not None else ""
    return ("saves a checkpoint and stops" if stopping else "suspended") + continuation
