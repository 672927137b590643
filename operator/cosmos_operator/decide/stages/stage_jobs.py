"""The Job of a stage other than the training: created when the stages that it needs have succeeded. Pure."""

from __future__ import annotations

from cosmos_operator.api.labels import JOB_NAME_LABEL, TEMPLATE_ANNOTATION
from cosmos_operator.decide.pass_state import LONG_WAIT_S, SHORT_WAIT_S, Pass, StageView
from cosmos_operator.decide.requirements.machines import gpu_shortage
from cosmos_operator.decide.requirements.queueing import waits_in_queue
from cosmos_operator.decide.training.progress import read_log
from cosmos_operator.kube.kinds import Manifest, ObjectKey
from cosmos_operator.kube.objects import (
    WorkloadState,
    is_being_deleted,
    name_of,
    owner_uids,
    parse_time,
    read_state,
)
from cosmos_operator.kube.pods import (
    Ending,
    ending_of,
    first_obstacle,
    is_over,
    is_stuck,
    phase_of,
)
from cosmos_operator.plan.job import build_stage_job
from cosmos_operator.plan.render import build_config_map, stage_name
from cosmos_operator.plan.stages import Stage


def advance_job(pass_: Pass, stage: Stage) -> StageView:
    """Read the state of a stage's Job, and create the Job if its turn has come."""
    name = stage_name(pass_.job, stage)
    workload = pass_.observed.get("Job", name)
    if workload is None:
        return _begin(pass_, stage, name)
    if is_being_deleted(workload):
        _delete_stuck_job(pass_, workload)
        pass_.requeue_after(SHORT_WAIT_S)
        return StageView("Waiting", "Deleting", f"Job {name} is being deleted", workload=workload)
    if not pass_.owns(workload):
        if not stage.is_shared:
            return pass_.name_conflict("Job", name)
        pass_.add_owner("Job", name)
    _restore_config_map(pass_, stage, name)
    state = read_state(workload)
    if state.state == "Failed":
        return _view_of_failed(pass_, stage, workload)
    if state.state == "Succeeded":
        return _view_of_succeeded(pass_, stage, workload)
    if pass_.is_suspended:
        return _stop(pass_, stage, workload)
    return _view_of_active(pass_, stage, workload)


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
    config_map = build_config_map(pass_.job, stage)
    if pass_.observed.get("ConfigMap", name) is None:
        pass_.create(config_map, shared=stage.is_shared)
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
        pass_.create(build_config_map(pass_.job, stage), shared=stage.is_shared)
    elif stage.is_shared and not pass_.owns(config_map):
        pass_.add_owner("ConfigMap", name)


# --- a Job that has ended -----------------------------------------------------------------------


def _view_of_succeeded(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    """A success of before this job counts, unless the stage reads a folder that may have changed since."""
    reads_claim = stage.kind == "prepare-dataset" and pass_.job.dataset_claim is not None
    if reads_claim and _ended_before_this_job(pass_, stage, read_state(workload)):
        pass_.delete(
            workload,
            "it succeeded before this job was created, and its folder may have changed since",
        )
        return _view_of_retried(pass_, f"{stage.name} checks that its folder has not changed")
    ending = _last_ending(pass_, workload)
    return StageView("Succeeded", "Ready", ending=ending, workload=workload)


def _view_of_failed(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    """A failure of before this job was created says nothing about this job: the Job is created anew."""
    state = read_state(workload)
    if _ended_before_this_job(pass_, stage, state):
        pass_.delete(workload, "it failed before this job was created")
        return _view_of_retried(pass_, f"{stage.name} failed for an earlier job and is tried again")
    ending = _last_ending(pass_, workload)
    if ending is None or ending.exit_code == 0:
        message = f"{stage.name}: {state.message}"
        return StageView("Failed", "StageFailed", message, workload=workload)
    message = ending.message or f"ended with exit code {ending.exit_code}"
    is_word = ending.reason.isalnum() and ending.reason[0].isalpha()
    reason = ending.reason if is_word else "StageFailed"
    return StageView("Failed", reason, f"{stage.name}: {message}", ending, workload)


def _ended_before_this_job(pass_: Pass, stage: Stage, state: WorkloadState) -> bool:
    """True if a shared Job ended before this PostTrainingJob was created."""
    created = parse_time(pass_.document["metadata"]["creationTimestamp"])
    ended = state.finish_time
    return stage.is_shared and ended is not None and parse_time(ended) < created


# --- a Job that runs ----------------------------------------------------------------------------


def _stop(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    """Delete a running Job, unless another PostTrainingJob uses it as well."""
    if len(workload["metadata"].get("ownerReferences", ())) <= 1:
        pass_.delete(workload, "the job is suspended")
        pass_.requeue_after(SHORT_WAIT_S)
        return StageView("Waiting", "Stopping", f"stops {stage.name}", workload=workload)
    message = f"{stage.name} goes on for another job"
    return StageView("Waiting", "Suspended", message, workload=workload)


def _view_of_active(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    name = name_of(workload)
    if waits_in_queue(pass_, workload):
        found = pass_.conditions.get("Admitted")
        return StageView("Blocked", "Queued", found.message if found else "", workload=workload)
    if node := _delete_stuck_job(pass_, workload):
        return _view_of_retried(pass_, f"{stage.name} is begun again: node {node} does not answer")
    active = [pod for pod in _pods_of(pass_, workload) if not is_over(pod)]
    obstacle = first_obstacle(active)
    if obstacle is not None and _is_outdated(pass_, stage, workload):
        pass_.delete(
            workload, f"it does not start, and was created with other settings: {obstacle.message}"
        )
        return _view_of_retried(pass_, f"{stage.name} is begun again with this job's settings")
    if obstacle is not None:
        pass_.requeue_after(LONG_WAIT_S)
        shortage = gpu_shortage(pass_, stage.gpus, 1) if obstacle.reason == "Unschedulable" else ""
        message = obstacle.message + (f"; {stage.name} {shortage}" if shortage else "")
        return StageView("Blocked", obstacle.reason, message, workload=workload)
    pass_.poll(workload["metadata"].get("creationTimestamp"))
    warnings = map(pass_.observed.warnings.get, _objects_with_warnings(name, active))
    if warning := next(filter(None, warnings), ""):
        return StageView("Blocked", "NotStarting", f"{stage.name}: {warning}", workload=workload)
    logs = (read_log(pass_.observed.logs.get(name_of(pod), "")) for pod in active)
    units = next((log.units for log in logs if log.units), "")
    return StageView("Running", "InProgress", units or f"runs {stage.name}", workload=workload)


def _delete_stuck_job(pass_: Pass, workload: Manifest) -> str:
    """Delete a Job whose pods are all stuck on nodes that do not answer, since it would wait for them for ever.

    Returns:
        The name of such a node; empty if nothing was deleted.
    """
    active = [pod for pod in _pods_of(pass_, workload) if not is_over(pod)]
    if not active or not all(is_stuck(pod, pass_.now) for pod in active):
        return ""
    node = str(active[0]["spec"].get("nodeName", "?"))
    pass_.delete(workload, f"node {node} does not answer", at_once=True)
    return node


def _is_outdated(pass_: Pass, stage: Stage, workload: Manifest) -> bool:
    """True if a Job was created with another image, or for other nodes, than this job asks for now.

    A Job that other jobs use as well is left to them; deleted jobs stop counting once they are garbage-collected.
    """
    metadata = workload["metadata"]
    if len(metadata.get("ownerReferences", ())) > 1 or not pass_.owns(workload):
        return False
    name = name_of(workload)
    wanted = build_stage_job(pass_.job, stage, name, name, pass_.settings)["metadata"]
    found = metadata.get("annotations", {}).get(TEMPLATE_ANNOTATION)
    return found is not None and found != wanted["annotations"][TEMPLATE_ANNOTATION]


def _view_of_retried(pass_: Pass, message: str) -> StageView:
    pass_.requeue_after(SHORT_WAIT_S)
    return StageView("Waiting", "Retrying", message)


# --- pods of a Job ------------------------------------------------------------------------------


def _pods_of(pass_: Pass, workload: Manifest) -> list[Manifest]:
    """Pods of a Job, without those of an earlier Job of the same name."""
    uid = workload["metadata"].get("uid")
    pods = pass_.observed.pods_with({JOB_NAME_LABEL: name_of(workload)})
    return [pod for pod in pods if uid in owner_uids(pod)]


def _objects_with_warnings(name: str, active: list[Manifest]) -> list[ObjectKey]:
    """Objects whose warnings explain the lack of a running pod."""
    if not active:
        return [("Job", name)]
    return [("Pod", name_of(pod)) for pod in active if phase_of(pod) == "Pending"]


def _last_ending(pass_: Pass, workload: Manifest) -> Ending | None:
    """The end of the worker in the Job's last pod; None if no pod left a trace."""
    pods = [pod for pod in _pods_of(pass_, workload) if is_over(pod)]
    pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    endings = [ending for pod in pods if (ending := ending_of(pod)) is not None]
    return endings[-1] if endings else None
