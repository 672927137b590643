"""Stages other than the training: one Job each, made when the stages that it needs have finished. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.pods import (
    Ending,
    ending_of,
    first_obstacle,
    is_over,
    is_stuck,
    name_of,
)
from cosmos_operator.decide.requirements.preflight import gpu_shortage
from cosmos_operator.decide.requirements.queueing import waits_in_queue
from cosmos_operator.decide.times import parse_time
from cosmos_operator.decide.training.log_lines import read_log
from cosmos_operator.decide.training.workloads import (
    WorkloadState,
    is_being_deleted,
    read_state,
)
from cosmos_operator.plan.job import build_stage_job
from cosmos_operator.plan.names import TEMPLATE_ANNOTATION
from cosmos_operator.plan.render import build_config_map, stage_name
from cosmos_operator.plan.stages import Stage

POD_LABEL = "batch.kubernetes.io/job-name"
SHORT_WAIT_S = 2.0

StageState = Literal["Waiting", "Blocked", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class StageView:
    """How far a stage is."""

    state: StageState
    reason: str = ""
    message: str = ""
    ending: Ending | None = None
    """Of its last pod."""
    workload: Manifest | None = None


def advance(draft: Draft, stage: Stage) -> StageView:
    """Look at a stage, and create its Job if its turn has come."""
    name = stage_name(draft.job, stage)
    workload = draft.observed.get("Job", name)
    if workload is None:
        return _begin(draft, stage, name)
    if is_being_deleted(workload):
        _let_go(draft, workload)
        draft.look_again(SHORT_WAIT_S)
        return StageView("Waiting", "Deleting", f"Job {name} is being deleted", workload=workload)
    if not draft.owns(workload):
        if not stage.is_shared:
            return foreign(draft, "Job", name)
        draft.share("Job", name)
    _keep_document(draft, stage, name)
    state = read_state(workload)
    if state.state == "Failed":
        return _failed(draft, stage, workload)
    if state.state == "Succeeded":
        if _may_have_changed(draft, stage) and _is_of_before(draft, stage, state):
            draft.delete(
                workload, "it succeeded before this job was created; its folder may differ"
            )
            return _retried(draft, f"{stage.name} looks whether its folder is as it was")
        return StageView(
            "Succeeded", "Ready", ending=_last_ending(draft, workload), workload=workload
        )
    if draft.suspended:
        return _stop(draft, stage, workload)
    return _running(draft, stage, workload)


def _begin(draft: Draft, stage: Stage, name: str) -> StageView:
    missing = [need for need in stage.depends_on if need not in draft.done]
    if missing:
        return StageView("Waiting", "Waiting", f"waits for {', '.join(missing)}")
    if draft.suspended:
        return StageView("Waiting", "Suspended", "spec.runPolicy.suspend is true")
    if draft.failure is not None:
        return StageView("Waiting", "Failed", "the job has failed")
    if draft.is_held:
        return StageView("Waiting", "Waiting", "waits for what the job needs")
    config_map = build_config_map(draft.job, stage)
    if draft.observed.get("ConfigMap", name) is None:
        draft.create(config_map, shared=stage.is_shared)
    job = build_stage_job(draft.job, stage, name, name, draft.settings)
    draft.create(job, shared=stage.is_shared)
    for kind in ("ConfigMap", "Job"):
        if refusal := draft.observed.refusals.get((kind, name)):
            draft.look_again(draft.settings.poll_seconds)
            return StageView("Blocked", "Refused", f"{kind} {name} cannot be created: {refusal}")
    return StageView("Running", "Starting", f"starts {stage.name}")


def _keep_document(draft: Draft, stage: Stage, name: str) -> None:
    """The ConfigMap must be there as long as the Job is."""
    config_map = draft.observed.get("ConfigMap", name)
    if config_map is None:
        draft.create(build_config_map(draft.job, stage), shared=stage.is_shared)
    elif stage.is_shared and not draft.owns(config_map):
        draft.share("ConfigMap", name)


def foreign(draft: Draft, kind: str, name: str) -> StageView:
    """An object that belongs to somebody else has the name that this job needs."""
    draft.look_again(SHORT_WAIT_S)
    return StageView(
        "Blocked",
        "NameConflict",
        f"{kind} {name!r} exists and does not belong to this job; it goes by itself if it is left over from a deleted "
        "job of the same name, otherwise delete it or rename the job",
    )


def _may_have_changed(draft: Draft, stage: Stage) -> bool:
    """Whether the stage reads a claim, whose content its key does not know; the worker compares it then."""
    return stage.kind == "prepare-dataset" and draft.job.spec.dataset.source.claim is not None


def _is_of_before(draft: Draft, stage: Stage, state: WorkloadState) -> bool:
    """Whether a shared Job ended before this job was created."""
    created = parse_time(draft.document["metadata"]["creationTimestamp"])
    ended = state.finish_time
    return stage.is_shared and ended is not None and parse_time(ended) < created


def _failed(draft: Draft, stage: Stage, workload: Manifest) -> StageView:
    """A Job that failed before this job was made says nothing about this job: it is made anew."""
    state = read_state(workload)
    if _is_of_before(draft, stage, state):
        draft.delete(workload, "it failed before this job was created")
        return _retried(draft, f"{stage.name} failed for an earlier job and is tried again")
    ending = _last_ending(draft, workload)
    if ending is None or ending.exit_code == 0:
        return StageView(
            "Failed", "StageFailed", f"{stage.name}: {state.message}", workload=workload
        )
    said = ending.message or f"ended with exit code {ending.exit_code}"
    reason = (
        ending.reason if ending.reason.isalnum() and ending.reason[0].isalpha() else "StageFailed"
    )
    return StageView("Failed", reason, f"{stage.name}: {said}", ending, workload)


def _stop(draft: Draft, stage: Stage, workload: Manifest) -> StageView:
    """Delete a running Job, unless another job uses it as well."""
    if len(workload["metadata"].get("ownerReferences", ())) <= 1:
        draft.delete(workload, "the job is suspended")
        draft.look_again(SHORT_WAIT_S)
        return StageView("Waiting", "Stopping", f"stops {stage.name}", workload=workload)
    return StageView(
        "Waiting", "Suspended", f"{stage.name} goes on for another job", workload=workload
    )


def _running(draft: Draft, stage: Stage, workload: Manifest) -> StageView:
    name = name_of(workload)
    if waits_in_queue(draft, workload):
        found = draft.conditions.get("Admitted")
        return StageView("Blocked", "Queued", found.message if found else "", workload=workload)
    if node := _let_go(draft, workload):
        return _retried(draft, f"{stage.name} is begun again: node {node} does not answer")
    active = [pod for pod in _pods_of(draft, workload) if not is_over(pod)]
    obstacle = first_obstacle(active)
    if obstacle is not None and _is_outdated(draft, stage, workload):
        draft.delete(workload, f"it does not start, and was made with other settings: {obstacle}")
        return _retried(draft, f"{stage.name} is begun again with this job's settings")
    if obstacle is not None:
        shortage = gpu_shortage(draft, stage.gpus, 1) if obstacle.reason == "Unschedulable" else ""
        message = obstacle.message + (f"; {stage.name} {shortage}" if shortage else "")
        draft.look_again(draft.settings.poll_seconds)
        return StageView("Blocked", obstacle.reason, message, workload=workload)
    warning = next(
        (w for key in _lagging(name, active) if (w := draft.observed.warnings.get(key))), ""
    )
    draft.look_again(draft.settings.poll_seconds)
    if warning:
        return StageView("Blocked", "NotStarting", f"{stage.name}: {warning}", workload=workload)
    units = next(
        (u for pod in active if (u := read_log(draft.observed.logs.get(name_of(pod), "")).units)),
        "",
    )
    return StageView("Running", "InProgress", units or f"runs {stage.name}", workload=workload)


def _pods_of(draft: Draft, workload: Manifest) -> list[Manifest]:
    """Pods of a Job, without those of one that had its name before."""
    uid = workload["metadata"].get("uid")
    return [
        pod
        for pod in draft.observed.pods_with({POD_LABEL: name_of(workload)})
        if uid in {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
    ]


def _let_go(draft: Draft, workload: Manifest) -> str:
    """Delete a Job whose pod's node never answers again, since the Job would wait for it; the node, or nothing."""
    left = [pod for pod in _pods_of(draft, workload) if not is_over(pod)]
    if not left or not all(is_stuck(pod, draft.now) for pod in left):
        return ""
    node = str(left[0]["spec"].get("nodeName", "?"))
    draft.delete(workload, f"node {node} does not answer", at_once=True)
    return node


def _is_outdated(draft: Draft, stage: Stage, workload: Manifest) -> bool:
    """Whether a Job was made with another image, or for other nodes, than this job asks for now.

    One that other jobs use as well is left to them; deleted ones count no more once they are collected.
    """
    metadata = workload["metadata"]
    if len(metadata.get("ownerReferences", ())) > 1 or not draft.owns(workload):
        return False
    name = name_of(workload)
    wanted = build_stage_job(draft.job, stage, name, name, draft.settings)["metadata"]
    found = metadata.get("annotations", {}).get(TEMPLATE_ANNOTATION)
    return found is not None and found != wanted["annotations"][TEMPLATE_ANNOTATION]


def _retried(draft: Draft, message: str) -> StageView:
    draft.look_again(SHORT_WAIT_S)
    return StageView("Waiting", "Retrying", message)


def _lagging(name: str, active: list[Manifest]) -> list[tuple[str, str]]:
    """Objects whose warnings explain why nothing runs."""
    if not active:
        return [("Job", name)]
    return [("Pod", name_of(pod)) for pod in active if pod["status"].get("phase") == "Pending"]


def _last_ending(draft: Draft, workload: Manifest) -> Ending | None:
    """Ending of the pod that ended last."""
    pods = [pod for pod in _pods_of(draft, workload) if is_over(pod)]
    pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    endings = [ending for pod in pods if (ending := ending_of(pod)) is not None]
    return endings[-1] if endings else None
