"""GPU hours of the training: used, repeated because of lost steps, and waited for; per attempt and job. Pure.

An attempt uses its GPUs from the time at which the first of its pods is scheduled until it has ended. It waits for
them from its creation until all of its pods run: in a queue, for nodes, for images. Steps that it did after the last
checkpoint are repeated by the next attempt; they cost their part of the time since all pods ran.
"""

from __future__ import annotations

from datetime import datetime

from cosmos_operator.api.status import Attempt, GpuHours
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.training.pods import Gang
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time, parse_time
from cosmos_operator.kube.pods import is_over, phase_of
from cosmos_operator.plan.stages import Stage

SECONDS_PER_HOUR = 3600.0


def count_gpu_hours(pass_: Pass, stage: Stage, gang: Gang, number: int) -> None:
    """Update the GPU hours of an attempt and of the job, if the training uses GPUs.

    Those of a running attempt change with its progress, so that they alone never cause a write of the status.

    Args:
        pass_: the pass.
        stage: the training.
        gang: the pods of the attempt.
        number: the number of the attempt, which may be followed by one that this pass has begun. An attempt that was
            taken back, because nothing of it had been created, counts no more.
    """
    before = next((one for one in pass_.attempts if one.number == number), None)
    if before is None:
        pass_.gpu_hours = _total(pass_)
        return
    attempt = _with_times(before, stage, gang, pass_.now)
    if attempt.gpus:
        is_news = (
            attempt.outcome != "Running"
            or pass_.progress != pass_.previous.progress
            or attempt.running_time != before.running_time
        )
        if is_news or attempt.gpu_hours is None:
            attempt = attempt.model_copy(update={"gpu_hours": _hours_of(pass_, attempt)})
    pass_.attempts = tuple(attempt if one is before else one for one in pass_.attempts)
    pass_.gpu_hours = _total(pass_)


def _with_times(attempt: Attempt, stage: Stage, gang: Gang, now: datetime) -> Attempt:
    """The attempt with its GPUs, and the times at which its pods got them and ran."""
    values: dict[str, object] = {}
    if attempt.gpus is None and stage.gpus:
        values["gpus"] = stage.gpus * stage.nodes
    if attempt.scheduled_time is None:
        times = [time for pod in gang.pods if (time := _scheduled_time(pod)) is not None]
        values["scheduled_time"] = min(times, default=None)
    if attempt.running_time is None and _all_run(gang, stage):
        values["running_time"] = format_time(now)
    return attempt.model_copy(update=values)


def _hours_of(pass_: Pass, attempt: Attempt) -> GpuHours:
    end = parse_time(attempt.finish_time) if attempt.finish_time else pass_.now
    gpus = attempt.gpus or 0

    def hours(since: str | None, until: datetime) -> float:
        if since is None:
            return 0.0
        return max(0.0, (until - parse_time(since)).total_seconds()) * gpus / SECONDS_PER_HOUR

    ran = parse_time(attempt.running_time) if attempt.running_time else end
    trained = hours(attempt.running_time, end)
    return GpuHours.model_construct(
        used=_text(hours(attempt.scheduled_time, end)),
        repeated=_text(trained * _lost_part(pass_, attempt)),
        waited=_text(hours(attempt.start_time, ran)),
    )


def _lost_part(pass_: Pass, attempt: Attempt) -> float:
    """Part of an ended attempt's steps that are after the last checkpoint, from 0 to 1."""
    if attempt.outcome in ("Running", "Succeeded") or attempt.end_step is None:
        return 0.0
    start = attempt.start_step or 0
    saved = pass_.checkpoints.latest_step if pass_.checkpoints else None
    done = attempt.end_step - start
    return max(0, attempt.end_step - max(saved or 0, start)) / done if done > 0 else 0.0


def _total(pass_: Pass) -> GpuHours | None:
    """GPU hours of the job: those of the last status, with what has been added to the listed attempts since."""
    known = {one.number: one.gpu_hours for one in pass_.previous.attempts}
    total = pass_.previous.gpu_hours
    for attempt in pass_.attempts:
        total = _sum(total, known.get(attempt.number), attempt.gpu_hours)
    return total


def _sum(
    total: GpuHours | None, before: GpuHours | None, after: GpuHours | None
) -> GpuHours | None:
    if after is None or after == before:
        return total

    def value(name: str) -> str:
        parts = (getattr(hours, name) if hours else "0" for hours in (total, after, before))
        sum_, added, removed = (float(part) for part in parts)
        return _text(max(0.0, sum_ + added - removed))

    return GpuHours.model_construct(
        used=value("used"), repeated=value("repeated"), waited=value("waited")
    )


def _scheduled_time(pod: Manifest) -> str | None:
    """Time at which a pod got its node, and the GPUs there."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    time: str | None = status.get("startTime")
    return time


def _all_run(gang: Gang, stage: Stage) -> bool:
    running = [pod for pod in gang.pods if phase_of(pod) == "Running" and not is_over(pod)]
    return len(running) >= stage.nodes


def _text(hours: float) -> str:
    return f"{hours:.3f}"
