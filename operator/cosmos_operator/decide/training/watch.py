"""A running attempt: whether it starts in time, is whole, and gets on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.status import Outcome
from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.pods import (
    Ending,
    Obstacle,
    disruption_of,
    ending_of,
    first_obstacle,
    is_over,
    name_of,
    phase_of,
)
from cosmos_operator.decide.requirements.preflight import gpu_shortage
from cosmos_operator.decide.requirements.queueing import (
    admitted_at,
    waits_in_queue,
)
from cosmos_operator.decide.stages.stage_jobs import StageView
from cosmos_operator.decide.times import format_duration, seconds_since
from cosmos_operator.decide.training import attempts as book
from cosmos_operator.decide.training.gang import Gang
from cosmos_operator.decide.training.outcomes import outcome_of
from cosmos_operator.decide.training.workloads import has_lost_its_pod
from cosmos_operator.plan.stages import Stage


@dataclass(frozen=True)
class Watched:
    """What was seen: how far the attempt is, or an outcome with which it must be stopped."""

    view: StageView
    outcome: Outcome | None = None
    message: str = ""
    node: str = ""


def watch(draft: Draft, stage: Stage, gang: Gang) -> Watched:
    """Look at an attempt whose workload is neither finished nor being deleted."""
    workload = gang.workload
    assert workload is not None
    if waits_in_queue(draft, workload):
        draft.condition("Running", "False", "Queued", "waits for its queue")
        admitted = draft.conditions.get("Admitted")
        return Watched(StageView("Blocked", "Queued", admitted.message if admitted else ""))
    if gang.leaving is not None:
        return member_is_leaving(gang.leaving)
    draft.look_again(draft.settings.poll_seconds)
    running = [pod for pod in gang.pods if phase_of(pod) == "Running" or is_over(pod)]
    if len(running) < stage.nodes:
        return _starting(draft, stage, gang, len(running))
    draft.condition("Running", "True", "AllPodsRunning", f"{stage.nodes} of {stage.nodes} pods run")
    return _progressing(draft, gang)


def member_is_leaving(pod: Manifest) -> Watched:
    """A gang without one of its members cannot go on; the others save and leave as well."""
    disruption = disruption_of(pod)
    node = str(pod["spec"].get("nodeName", ""))
    ending = ending_of(pod) or Ending(143, "", "", node=node, disruption=disruption)
    outcome: Outcome = outcome_of(ending) if disruption else "Deleted"
    why = f" ({disruption})" if disruption else ""
    message = f"pod {name_of(pod)} on node {node or '?'} was taken away{why}"
    return Watched(StageView("Waiting", "Stopping", message), outcome, message, node)


def _starting(draft: Draft, stage: Stage, gang: Gang, num_running: int) -> Watched:
    obstacle = _obstacle(draft, stage, gang)
    reason = obstacle.reason if obstacle else "Starting"
    message = obstacle.message if obstacle else f"{num_running} of {stage.nodes} pods run"
    draft.condition("Running", "False", reason, message)
    if late := starts_too_late(draft, gang, message):
        return Watched(StageView("Failed", reason, late), "DeadlineExceeded", late)
    return Watched(StageView("Blocked" if obstacle else "Running", reason, message))


def starts_too_late(draft: Draft, gang: Gang, message: str) -> str:
    """What to say of a training that has never done a step, if its deadline for that is over; empty otherwise.

    The time is that since its first attempt, or since it was last resumed, or since its queue let the latest in.
    """
    deadline = draft.job.spec.run_policy.start_deadline_seconds
    has_started = draft.checkpoints is not None or any(
        one.end_step is not None for one in draft.attempts
    )
    attempts = book.since_suspended(book.since_resumed(draft.attempts, draft.previous.conditions))
    if deadline is None or has_started or not attempts:
        return ""
    since = [attempts[0].start_time]
    if gang.workload is not None:
        since.append(admitted_at(draft, gang.workload))
    age = min((seconds_since(time, draft.now) for time in since if time), default=0.0)
    if age > deadline:
        return f"training has not started within spec.runPolicy.startDeadlineSeconds={deadline}: {message}"
    draft.look_again(deadline - age + 1)
    return ""


def _obstacle(draft: Draft, stage: Stage, gang: Gang) -> Obstacle | None:
    """Why pods are missing or do not start."""
    workload = gang.workload
    assert workload is not None
    if has_lost_its_pod(workload):
        return Obstacle(
            "RuntimePatchesLost",
            f"{name_of(workload)!r} has lost its spec.runtimePatches: something wrote it that knows no Trainer after "
            "2.1, such as Kueue below 0.17; upgrade that, and delete the TrainJob",
        )
    obstacle = first_obstacle(gang.active)
    if obstacle is not None and obstacle.reason == "Unschedulable":
        shortage = gpu_shortage(draft, stage.gpus, stage.nodes)
        if shortage:
            return Obstacle(obstacle.reason, f"{obstacle.message}; the training {shortage}")
    if obstacle is not None:
        return obstacle
    keys = [("Pod", name_of(pod)) for pod in gang.active if phase_of(pod) == "Pending"]
    if len(gang.pods) < stage.nodes:
        keys.append((workload["kind"], workload["metadata"]["name"]))
    warning = next((w for key in keys if (w := draft.observed.warnings.get(key))), "")
    return Obstacle("NotStarting", warning) if warning else None


def _progressing(draft: Draft, gang: Gang) -> Watched:
    """Whether the leader still reports progress."""
    timeout = draft.job.spec.run_policy.stall_timeout_seconds
    if gang.leader is None or not gang.has_log:
        step = draft.attempts[-1].end_step
        message = "the training begins" if step is None else f"no news since step {step}"
        draft.condition("Progressing", "Unknown", "NoLog", "the leader's log cannot be read")
        return Watched(StageView("Running", "Running", message))
    idle = _seconds_without_news(draft, gang)
    if idle > timeout:
        message = (
            f"no progress for {format_duration(idle)} (spec.runPolicy.stallTimeoutSeconds={timeout}), last step "
            f"{gang.facts.step if gang.facts.step is not None else 'unknown'}"
        )
        draft.condition("Progressing", "False", "Stalled", message)
        node = str(gang.leader["spec"].get("nodeName", ""))
        return Watched(StageView("Waiting", "Stalled", message), "Stalled", message, node)
    draft.look_again(max(1.0, timeout - idle + 1))
    draft.condition("Progressing", "True", "StepsReported", "the training reports progress")
    return Watched(StageView("Running", "Running", ""))


def _seconds_without_news(draft: Draft, gang: Gang) -> float:
    """Since the leader last reported, or was started; what is seen of its log may lack what was seen before."""
    assert gang.leader is not None
    before = draft.previous.progress
    signs = [
        gang.facts.report_time,
        gang.leader.get("status", {}).get("startTime"),
        before.last_report_time if before else None,
    ]
    return min((seconds_since(time, draft.now) for time in signs if time), default=0.0)
