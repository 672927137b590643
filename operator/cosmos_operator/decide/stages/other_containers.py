"""Stages in whose pods other software has put containers that do not end, or fail, when the worker has ended. Pure.

The result is the worker's. Kubernetes waits for all containers of a pod, and repeats the pod if any of them fails, so
what is left of a Job whose worker has succeeded is deleted, and a pod whose worker has failed is ended, which lets the
Job repeat it by its own rules.
"""

from __future__ import annotations

from cosmos_operator.decide.decision import Delete
from cosmos_operator.decide.endings import is_overdue, tell_others
from cosmos_operator.decide.find_job import find_job
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Pass, StageView
from cosmos_operator.decide.stages.results import add_note, keep_result
from cosmos_operator.decide.stages.stage_pods import ended_pods
from cosmos_operator.kube.containers import kept_alive_by
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import (
    WorkloadState,
    is_being_deleted,
    name_of,
    read_state,
)
from cosmos_operator.kube.pods import phase_of
from cosmos_operator.plan.job import FATAL_EXIT_CODES
from cosmos_operator.plan.stages import Stage


def judge(pass_: Pass, stage: Stage, workload: Manifest) -> WorkloadState:
    """The state of a stage's Job by what its workers did, where the Job's controller judges other containers too."""
    state = read_state(workload)
    if state.state == "Succeeded":
        return state
    for pod, ending in ended_pods(pass_, stage, workload):
        is_kept = bool(kept_alive_by(pod))
        if ending.exit_code == 0 and (is_kept or phase_of(pod) == "Failed"):
            return WorkloadState("Succeeded", ending.reason, ending.message)
        if is_kept and state.state == "Active" and ending.exit_code in FATAL_EXIT_CODES:
            return WorkloadState("Failed", ending.reason, ending.message)
    return state


def await_retry(pass_: Pass, stage: Stage, workload: Manifest) -> StageView:
    """The view of a Job whose worker has failed, and that tries again once the pod has ended."""
    message = end_kept_pods(pass_, stage, workload, "Retrying")
    text = f"{stage.name} is tried again: {message}"
    return StageView("Running", "InProgress", text, workload=workload)


def end_kept_pods(pass_: Pass, stage: Stage, workload: Manifest, state: str) -> str:
    """End the pods whose workers have failed and that other containers keep, once these have had their time.

    Args:
        pass_: the pass.
        stage: the stage.
        workload: its Job.
        state: state of the stage's result: Failed or Retrying.

    Returns:
        The words of such a worker; empty if there is none.
    """
    message = ""
    for pod, ending in ended_pods(pass_, stage, workload):
        if not kept_alive_by(pod):
            continue
        message = ending.message or f"ended with exit code {ending.exit_code}"
        pass_.requeue_after(SHORT_WAIT_S)
        if is_overdue(
            ending, pass_.now, pass_.settings.sidecar_grace_seconds
        ) and not is_being_deleted(pod):
            keep_result(pass_, stage, state, ending.reason, message, ending, workload)
            add_note(pass_, stage, tell_others(pod))
            metadata = pod["metadata"]
            reason = "other containers did not end with the worker"
            pass_.actions.append(
                Delete("Pod", metadata["name"], metadata["uid"], reason, foreground=False)
            )
    return message


def end_left_over(pass_: Pass, stage: Stage) -> None:
    """Delete what is left of the Job of a stage that has succeeded, if other containers keep it from ending."""
    workload = find_job(pass_, stage)
    if workload is None or not pass_.owns(workload) or is_being_deleted(workload):
        return
    if read_state(workload).state in ("Succeeded", "Failed"):
        return
    for pod, ending in ended_pods(pass_, stage, workload):
        if ending.exit_code != 0 or not (kept_alive_by(pod) or phase_of(pod) == "Failed"):
            continue
        if not is_overdue(ending, pass_.now, pass_.settings.sidecar_grace_seconds):
            pass_.requeue_after(SHORT_WAIT_S)
            return
        note = tell_others(pod) or f"a container beside the worker failed in pod {name_of(pod)}"
        add_note(pass_, stage, note)
        pass_.delete(workload, "the worker has succeeded, and other containers have not")
        return
