"""The Job of a stage other than the training: created when the stages that it needs have succeeded. Pure."""

from __future__ import annotations

from cosmos_operator.api.labels import QUEUE_LABEL, TEMPLATE_ANNOTATION
from cosmos_operator.decide.endings import deadline_field
from cosmos_operator.decide.find_job import find_job, give_up_earlier_jobs, is_of_operator
from cosmos_operator.decide.pass_state import LONG_WAIT_S, SHORT_WAIT_S, Pass, StageView
from cosmos_operator.decide.requirements.machines import gpu_shortage
from cosmos_operator.decide.requirements.queueing import waits_in_queue
from cosmos_operator.decide.requirements.unattended import (
    DEFAULT_QUEUE,
    unattended_obstacle,
    unscheduled_obstacle,
)
from cosmos_operator.decide.stages.other_containers import await_retry, end_kept_pods, judge
from cosmos_operator.decide.stages.stage_pods import last_ending, pods_of
from cosmos_operator.decide.training.progress import read_log
from cosmos_operator.kube.containers import kept_alive_by
from cosmos_operator.kube.kinds import Manifest, ObjectKey
from cosmos_operator.kube.objects import (
    WorkloadState,
    is_being_deleted,
    labels_of,
    name_of,
    owner_uids,
    parse_time,
)
from cosmos_operator.kube.pods import (
    first_obstacle,
    is_over,
    is_stuck,
    phase_of,
)
from cosmos_operator.plan.job import build_stage_job
from cosmos_operator.plan.render import build_config_map
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.workload import is_queued

DEADLINE_EXCEEDED = "DeadlineExceeded"
"""Reason that Kubernetes gives for a Job that it has ended at its activeDeadlineSeconds."""


def advance_job(pass_: Pass, stage: Stage) -> StageView:
    """Read the state of a stage's Job, and create the Job if its turn has come."""
    workload = find_job(pass_, stage)
    if workload is None:
        return _begin(pass_, stage, pass_.object_names[stage.name])
    name = name_of(workload)
    give_up_earlier_jobs(pass_, stage, workload)
    state = judge(pass_, stage, workload)
    if is_being_deleted(workload) and state.state != "Succeeded":
        _delete_stuck_job(pass_, workload)
        pass_.requeue_after(SHORT_WAIT_S)
        return StageView("Waiting", "Deleting", f"Job {name} is being deleted", workload=workload)
    if not pass_.owns(workload) and not (stage.is_shared and is_of_operator(stage, workload)):
        return pass_.name_conflict("Job", name)
    if state.state == "Failed" and pass_.is_retrying:
        if not pass_.owns(workload):
            pass_.delete(workload, "it failed before the job was told to try again")
        return _view_of_retried(pass_, f"{stage.name} is tried again (spec.runPolicy.retry)")
    if state.state == "Failed":
        return _view_of_failed(pass_, stage, workload, state)
    if state.state == "Succeeded":
        _share(pass_, stage, workload)
        return _view_of_succeeded(pass_, stage, workload, state)
    if pass_.is_suspended:
        return _stop(pass_, stage, workload)
    _share(pass_, stage, workload)
    if refused := pass_.creation_refused("ConfigMap", name):
        return refused
    return _view_of_active(pass_, stage, workload)


def _share(pass_: Pass, stage: Stage, workload: Manifest) -> None:
    """Own a shared Job that is used, and make what its pods mount again if somebody deleted it."""
    if is_being_deleted(workload):
        return
    if not pass_.owns(workload):
        pass_.add_owner("Job", name_of(workload))
    _restore_config_map(pass_, stage, name_of(workload))


def _begin(pass_: Pass, stage: Stage, name: str) -> StageView:
    if missing := pass_.unfinished_dependencies(stage):
        return StageView("Waiting", "Waiting", f"waits for {', '.join(missing)}")
    if pass_.is_suspended:
        return StageView("Waiting", "Suspended", "spec.runPolicy.suspend is true")
    if pass_.failure is not None:
        return StageView("Waiting", "Failed", "the job has failed")
    if pass_.lacks_requirements:
        return StageView(
            "Waiting", "Waiting", "waits for the claims or the queue that the job needs"
        )
    pass_.results.pop(stage.name, None)
    config_map = build_config_map(pass_.job, stage, name)
    found = pass_.observed.get("ConfigMap", name)
    if found is None:
        pass_.create(config_map, shared=stage.is_shared)
    elif not stage.is_shared and pass_.replaces_outdated(config_map, found):
        return StageView("Waiting", "Starting", f"ConfigMap {name} is made anew")
    job = build_stage_job(pass_.job, stage, name, name, pass_.settings)
    pass_.create(job, shared=stage.is_shared)
    for kind in ("ConfigMap", "Job"):
        if refused := pass_.creation_refused(kind, name):
            return refused
    return StageView("Running", "InProgress", f"runs {stage.name}")


def _restore_config_map(pass_: Pass, stage: Stage, name: str) -> None:
    """Create the ConfigMap of an existing Job again if somebody deleted it, and own a shared one."""
    config_map = pass_.observed.get("ConfigMap", name)
    if config_map is None:
        pass_.create(build_config_map(pass_.job, stage, name), shared=stage.is_shared)
    elif stage.is_shared and not pass_.owns(config_map):
        pass_.add_owner("ConfigMap", name)


# --- a Job that has ended -----------------------------------------------------------------------


def _view_of_succeeded(
    pass_: Pass, stage: Stage, workload: Manifest, state: WorkloadState
) -> StageView:
    """A success of before this job counts, unless the stage reads a folder that may have changed since."""
    reads_claim = stage.kind == "prepare-dataset" and pass_.job.dataset_claim is not None
    if reads_claim and _ended_before_this_job(pass_, stage, state):
        pass_.delete(
            workload,
            "it succeeded before this job was created, and its folder may have changed since",
        )
        return _view_of_retried(pass_, f"{stage.name} checks that its folder has not changed")
    ending = last_ending(pass_, stage, workload)
    return StageView("Succeeded", "Ready", ending=ending, workload=workload)


def _view_of_failed(
    pass_: Pass, stage: Stage, workload: Manifest, state: WorkloadState
) -> StageView:
    """A failure counts for this job if it came after it, and with the image and the resources that it asks for."""
    if reason := _reason_to_try_again(pass_, stage, workload, state):
        _discard(pass_, stage, workload, reason)
        return _view_of_retried(pass_, f"{stage.name} is tried again: {reason}")
    _share(pass_, stage, workload)
    end_kept_pods(pass_, stage, workload, "Failed")
    if state.reason == DEADLINE_EXCEEDED:
        return _view_of_late(stage, workload)
    ending, known = last_ending(pass_, stage, workload), pass_.results.get(stage.name)
    if ending is None and known is not None and known.message:  # told before its pod was ended
        message = f"{stage.name}: {known.message}"
        return StageView("Failed", known.reason or "StageFailed", message, workload=workload)
    if ending is None or ending.exit_code == 0:
        message = f"{stage.name}: {state.message}"
        return StageView("Failed", "StageFailed", message, workload=workload)
    message = ending.message or f"ended with exit code {ending.exit_code}"
    is_word = ending.reason.isalnum() and ending.reason[0].isalpha()
    reason = ending.reason if is_word else "StageFailed"
    return StageView("Failed", reason, f"{stage.name}: {message}", ending, workload)


def _view_of_late(stage: Stage, workload: Manifest) -> StageView:
    """A stage that Kubernetes has ended at its deadline."""
    limit = workload["spec"].get("activeDeadlineSeconds")
    message = (
        f"{stage.name}: was not done within its deadline of {limit} s; if it made progress, raise "
        f"{deadline_field(stage.kind)} and spec.runPolicy.retry, which continues with what is there"
    )
    return StageView("Failed", DEADLINE_EXCEEDED, message, workload=workload)


def _reason_to_try_again(
    pass_: Pass, stage: Stage, workload: Manifest, state: WorkloadState
) -> str:
    """The reason for which a failure says nothing about this job; empty if it does."""
    if _ended_before_this_job(pass_, stage, state):
        return "it failed for an earlier job"
    if _was_let_go_on_since(pass_, state):
        return "it failed before the job was let go on"
    if has_other_template(pass_, stage, workload):
        return "it failed with the settings of another job, or of before an edit"
    return ""


def _ended_before_this_job(pass_: Pass, stage: Stage, state: WorkloadState) -> bool:
    """True if a shared Job ended before this PostTrainingJob was created."""
    created = parse_time(pass_.document["metadata"]["creationTimestamp"])
    ended = state.finish_time
    return stage.is_shared and ended is not None and parse_time(ended) < created


def _was_let_go_on_since(pass_: Pass, state: WorkloadState) -> bool:
    """True if the job had failed, and was let go on after the end of a stage's Job."""
    failed = next((one for one in pass_.previous.conditions if one.type == "Failed"), None)
    if failed is None:
        return False
    if failed.status == "True":  # this is the first pass since
        return True
    if state.finish_time is None or failed.reason != "InFlight":
        return False
    return parse_time(state.finish_time) < parse_time(failed.last_transition_time)


# --- a Job that runs ----------------------------------------------------------------------------


def _stop(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    """Delete a running Job, or if jobs share it, give it up: the last of them deletes it."""
    if not pass_.owns(workload):
        return StageView("Waiting", "Suspended", "spec.runPolicy.suspend is true")
    if not stage.is_shared:
        pass_.delete(workload, "the job is suspended")
        pass_.requeue_after(SHORT_WAIT_S)
        return StageView("Waiting", "Stopping", f"stops {stage.name}", workload=workload)
    is_last = owner_uids(workload) == {pass_.uid}
    pass_.give_up_job(workload, "the job is suspended")
    if is_last:
        return StageView("Waiting", "Stopping", f"stops {stage.name}", workload=workload)
    message = f"{stage.name} goes on for another job"
    return StageView("Waiting", "Suspended", message, workload=workload)


def _view_of_active(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    name = name_of(workload)
    is_alone = owner_uids(workload) == {pass_.uid}  # others may wait in a queue of theirs
    waits = waits_in_queue(pass_, workload)
    if is_alone and waits and not _has_queue_of_spec(pass_, stage, workload):
        pass_.delete(workload, "it waits in another queue than the job names now")
        return _view_of_retried(pass_, f"{stage.name} is begun again with this job's settings")
    if waits:
        found = pass_.conditions.get("Admitted")
        return StageView("Blocked", "Queued", found.message if found else "", workload=workload)
    if node := _delete_stuck_job(pass_, workload):
        return _view_of_retried(pass_, f"{stage.name} is begun again: node {node} does not answer")
    active = [pod for pod in pods_of(pass_, workload) if not is_over(pod)]
    if any(map(kept_alive_by, active)):
        return await_retry(pass_, stage, workload)
    obstacle = first_obstacle(active)
    if obstacle is not None and has_other_template(pass_, stage, workload):
        reason = f"it does not start, and was created with other settings: {obstacle.message}"
        _discard(pass_, stage, workload, reason)
        return _view_of_retried(pass_, f"{stage.name} is begun again with this job's settings")
    if obstacle is not None:
        pass_.requeue_after(LONG_WAIT_S)
        shortage = gpu_shortage(pass_, stage) if obstacle.reason == "Unschedulable" else ""
        message = obstacle.message + (f"; {stage.name} {shortage}" if shortage else "")
        return StageView("Blocked", obstacle.reason, message, workload=workload)
    pass_.poll(workload["metadata"].get("creationTimestamp"))
    warnings = map(pass_.observed.warnings.get, _objects_with_warnings(name, active))
    if warning := next(filter(None, warnings), ""):
        return StageView("Blocked", "NotStarting", f"{stage.name}: {warning}", workload=workload)
    obstacle = (
        unscheduled_obstacle(pass_, active) if active else unattended_obstacle(pass_, workload)
    )
    if obstacle is not None:
        return StageView("Blocked", obstacle.reason, obstacle.message, workload=workload)
    logs = (read_log(pass_.observed.logs.get(name_of(pod), "")) for pod in active)
    units = next((log.units for log in logs if log.units), "")
    return StageView("Running", "InProgress", units or f"runs {stage.name}", workload=workload)


def _delete_stuck_job(pass_: Pass, workload: Manifest) -> str:
    """Delete a Job whose pods are all stuck on nodes that do not answer, since it would wait for them for ever.

    Returns:
        The name of such a node; empty if nothing was deleted.
    """
    active = [pod for pod in pods_of(pass_, workload) if not is_over(pod)]
    if not active or not all(is_stuck(pod, pass_.now) for pod in active):
        return ""
    node = str(active[0]["spec"].get("nodeName", "?"))
    pass_.delete(workload, f"node {node} does not answer", at_once=True)
    return node


def _discard(pass_: Pass, stage: Stage, workload: Manifest, reason: str) -> None:
    """Delete a Job that is of no use; one of before an edit is left to the jobs that use it as well."""
    is_used_by_others = pass_.owns(workload) and owner_uids(workload) != {pass_.uid}
    if is_used_by_others and has_other_template(pass_, stage, workload):
        pass_.give_up_job(workload, reason)
    else:
        pass_.delete(workload, reason)


def has_other_template(pass_: Pass, stage: Stage, workload: Manifest) -> bool:
    """True if a Job was created with another image, resources or nodes than this job asks for now."""
    name = name_of(workload)
    wanted = build_stage_job(pass_.job, stage, name, name, pass_.settings)["metadata"]
    found = workload["metadata"].get("annotations", {}).get(TEMPLATE_ANNOTATION)
    return found is not None and found != wanted["annotations"][TEMPLATE_ANNOTATION]


def _has_queue_of_spec(pass_: Pass, stage: Stage, workload: Manifest) -> bool:
    """True if a workload waits in the queue that the job names, or in the one that Kueue gives to those without."""
    name = pass_.job.queue_name if is_queued(pass_.job, stage) else ""
    found = labels_of(workload).get(QUEUE_LABEL) or ""
    return found == (name or "") or (not name and found == DEFAULT_QUEUE)


def _view_of_retried(pass_: Pass, message: str) -> StageView:
    pass_.requeue_after(SHORT_WAIT_S)
    return StageView("Waiting", "Retrying", message)


def _objects_with_warnings(name: str, active: list[Manifest]) -> list[ObjectKey]:
    """Objects whose warnings explain the lack of a running pod."""
    if not active:
        return [("Job", name)]
    return [("Pod", name_of(pod)) for pod in active if phase_of(pod) == "Pending"]
