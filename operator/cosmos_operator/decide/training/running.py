"""A running attempt: all its pods start in time, none leaves, and the leader reports progress. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.status import Outcome
from cosmos_operator.decide.pass_state import LONG_WAIT_S, Pass, StageView
from cosmos_operator.decide.requirements.machines import gpu_shortage
from cosmos_operator.decide.requirements.queueing import admitted_at, waits_in_queue
from cosmos_operator.decide.requirements.unattended import (
    podless_obstacle,
    unattended_obstacle,
    unscheduled_obstacle,
)
from cosmos_operator.decide.training import backoff
from cosmos_operator.decide.training.outcomes import outcome_of
from cosmos_operator.decide.training.partial_start import partial_start_problem
from cosmos_operator.decide.training.pods import Gang
from cosmos_operator.decide.training.progress import is_news
from cosmos_operator.kube.containers import has_started
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_duration, name_of, seconds_since
from cosmos_operator.kube.pods import (
    Ending,
    Obstacle,
    disruption_of,
    ending_of,
    first_obstacle,
    is_over,
    phase_of,
)
from cosmos_operator.plan.edits import spec_key
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.trainjob import MANAGER, OWN_RUNTIME_KIND

EXIT_AFTER_SIGTERM = 143


@dataclass(frozen=True)
class CheckResult:
    """The view of a running attempt, and if it must be stopped, the outcome of that."""

    view: StageView
    outcome: Outcome | None = None
    """None: the attempt goes on."""
    message: str = ""
    node: str = ""
    """Node that is to blame; empty if none is."""


def check_running_attempt(pass_: Pass, stage: Stage, gang: Gang) -> CheckResult:
    """Check an attempt whose workload has neither finished nor is being deleted."""
    assert gang.workload is not None
    if _awaits_edited(pass_, stage, gang):
        message = "spec was changed before it ran"
        return CheckResult(StageView("Waiting", "Stopping", message), "Edited", message)
    if waits_in_queue(pass_, gang.workload):
        pass_.set_condition("Running", "False", "Queued", "waits for its queue")
        admitted = pass_.conditions.get("Admitted")
        return CheckResult(StageView("Blocked", "Queued", admitted.message if admitted else ""))
    if gang.leaving is not None:
        return describe_leaving_pod(gang.leaving)
    running = [pod for pod in gang.pods if has_started(pod) or is_over(pod)]
    nodes = pass_.attempts[-1].nodes or stage.nodes
    if len(running) < nodes:
        if problem := _reason_to_stop_start(pass_, stage, gang):
            return problem
        return _check_start(pass_, stage, gang, len(running))
    message = f"{nodes} of {nodes} pods run"
    pass_.set_condition("Running", "True", "AllPodsRunning", message)
    pass_.poll((gang.leader or gang.workload).get("status", {}).get("startTime"))
    return _check_progress(pass_, gang)


def _awaits_edited(pass_: Pass, stage: Stage, gang: Gang) -> bool:
    """True for an attempt that waits for its queue, or for its first pods, with what spec asks for no more."""
    assert gang.workload is not None
    attempt = pass_.attempts[-1]
    if attempt.spec_key in (None, spec_key(pass_.training_job)):
        return False
    if waits_in_queue(pass_, gang.workload):
        return not gang.active
    running = [pod for pod in gang.pods if phase_of(pod) == "Running" or is_over(pod)]
    has_begun = attempt.end_step is not None or gang.facts.report_time is not None
    return not has_begun and len(running) < (attempt.nodes or stage.nodes)


def describe_leaving_pod(pod: Manifest) -> CheckResult:
    """Stop a gang of which somebody takes a pod away: it cannot go on without it, and the others save and end."""
    disruption = disruption_of(pod)
    node = str(pod["spec"].get("nodeName", ""))
    ending = ending_of(pod) or Ending(EXIT_AFTER_SIGTERM, "", "", node=node, disruption=disruption)
    outcome: Outcome = outcome_of(ending) if disruption else "Deleted"
    detail = f" ({disruption})" if disruption else ""
    message = f"pod {name_of(pod)} on node {node or '?'} was taken away{detail}"
    return CheckResult(StageView("Waiting", "Stopping", message), outcome, message, node)


# --- the start ----------------------------------------------------------------------------------


def _reason_to_stop_start(pass_: Pass, stage: Stage, gang: Gang) -> CheckResult | None:
    """Stop an attempt whose kind nothing carries out, or that keeps some nodes while others are not to be had."""
    assert gang.workload is not None
    attempt, is_free = pass_.attempts[-1], pass_.job.spec.backend.type == "Auto"
    if not gang.pods and is_free and attempt.backend != "Job":
        obstacle = unattended_obstacle(pass_, gang.workload)
        if obstacle is not None:
            message = f"{obstacle.message}; spec.backend.type: Auto takes a Job instead"
            view = StageView("Waiting", "Stopping", message)
            return CheckResult(view, "Unattended", message)
    if message := partial_start_problem(pass_, stage, gang):
        return CheckResult(StageView("Waiting", "Stopping", message), "PartialStart", message)
    return None


def _check_start(pass_: Pass, stage: Stage, gang: Gang, num_running: int) -> CheckResult:
    obstacle = _obstacle(pass_, stage, gang)
    reason = obstacle.reason if obstacle else "Starting"
    message = obstacle.message if obstacle else f"{num_running} of {stage.nodes} pods run"
    if obstacle is not None and obstacle.reason != "NotStarting":
        pass_.requeue_after(LONG_WAIT_S)
    else:
        assert gang.workload is not None
        pass_.poll(gang.workload["metadata"].get("creationTimestamp"))
    pass_.set_condition("Running", "False", reason, message)
    if problem := start_deadline_problem(pass_, gang, message):
        return CheckResult(StageView("Failed", reason, problem), "DeadlineExceeded", problem)
    return CheckResult(StageView("Blocked" if obstacle else "Running", reason, message))


def start_deadline_problem(pass_: Pass, gang: Gang, detail: str) -> str:
    """The message on a training that has done no step within its start deadline; empty while it may still start.

    The time counts from the first attempt, from the last resumption, or from the last admission by a queue, whichever
    is latest.
    """
    deadline = pass_.job.spec.run_policy.start_deadline_seconds
    has_started = pass_.checkpoints is not None or any(
        one.end_step is not None for one in pass_.attempts
    )
    attempts = backoff.since_stopped(pass_.unforgiven_attempts)
    if deadline is None or has_started or not attempts:
        return ""
    starts = [attempts[0].start_time]
    if gang.workload is not None:
        starts.append(admitted_at(pass_, gang.workload))
    age = min((seconds_since(time, pass_.now) for time in starts if time), default=0.0)
    if age > deadline:
        return f"training has not started within spec.runPolicy.startDeadlineSeconds={deadline}: {detail}"
    pass_.requeue_after(deadline - age + 1)
    return ""


def _obstacle(pass_: Pass, stage: Stage, gang: Gang) -> Obstacle | None:
    """The reason for which pods are missing or do not start."""
    workload = gang.workload
    assert workload is not None
    if _has_lost_its_patches(workload):
        return Obstacle(
            "RuntimePatchesLost",
            f"{name_of(workload)!r} has lost its spec.runtimePatches: something wrote it that knows no Trainer after "
            "2.1, such as Kueue below 0.17; upgrade that, and delete the TrainJob",
        )
    obstacle = first_obstacle(gang.active)
    if obstacle is not None and obstacle.reason == "Unschedulable":
        shortage = gpu_shortage(pass_, stage)
        if shortage:
            return Obstacle(obstacle.reason, f"{obstacle.message}; the training {shortage}")
    if obstacle is not None:
        return obstacle
    keys = [("Pod", name_of(pod)) for pod in gang.active if phase_of(pod) == "Pending"]
    if len(gang.pods) < stage.nodes:
        keys.append((workload["kind"], name_of(workload)))
    warning = next((w for key in keys if (w := pass_.observed.warnings.get(key))), "")
    if warning:
        return Obstacle("NotStarting", warning)
    if gang.pods:
        return unscheduled_obstacle(pass_, gang.active)
    never_had_pods = pass_.attempts[-1].scheduled_time is None
    podless = podless_obstacle(pass_, workload) if never_had_pods else None
    return unattended_obstacle(pass_, workload) or podless


def _has_lost_its_patches(workload: Manifest) -> bool:
    """True if somebody has written a TrainJob without the patch that describes our pods."""
    if workload["kind"] != "TrainJob":
        return False
    if (workload["spec"].get("runtimeRef") or {}).get("kind") == OWN_RUNTIME_KIND:
        return False  # the runtime holds the whole pod
    patches = workload["spec"].get("runtimePatches") or ()
    return all(patch.get("manager") != MANAGER for patch in patches)


# --- progress -----------------------------------------------------------------------------------


def _check_progress(pass_: Pass, gang: Gang) -> CheckResult:
    """Stop an attempt whose leader has reported no progress for the stall timeout."""
    timeout = pass_.job.spec.run_policy.stall_timeout_seconds
    if gang.leader is None or not gang.has_log:
        step = pass_.attempts[-1].end_step
        message = "the training begins" if step is None else f"no news since step {step}"
        pass_.set_condition("Progressing", "Unknown", "NoLog", "the leader's log cannot be read")
        return CheckResult(StageView("Running", "Running", message))
    idle = _seconds_without_report(pass_, gang)
    if idle > timeout:
        step = gang.facts.step
        message = (
            f"no progress for {format_duration(idle)} (spec.runPolicy.stallTimeoutSeconds={timeout}), last step "
            f"{step if step is not None else 'unknown'}"
        )
        pass_.set_condition("Progressing", "False", "Stalled", message)
        node = str(gang.leader["spec"].get("nodeName", ""))
        return CheckResult(StageView("Waiting", "Stalled", message), "Stalled", message, node)
    pass_.requeue_after(max(1.0, timeout - idle + 1))
    message = "the training reports progress"
    pass_.set_condition("Progressing", "True", "StepsReported", message)
    return CheckResult(StageView("Running", "Running", ""))


def _seconds_without_report(pass_: Pass, gang: Gang) -> float:
    """Seconds since the training last reported or began to run, as this operator saw it.

    The times in the log are those of a node whose clock may be wrong: they only tell whether a report is new.
    """
    before = pass_.previous.progress
    if is_news(before, gang.facts):
        return 0.0
    running = pass_.conditions.get("Running")
    times = [
        running.last_transition_time if running is not None else None,
        before.last_report_time if before else None,
    ]
    return min((seconds_since(time, pass_.now) for time in times if time), default=0.0)
