"""Bookkeeping of attempts: what they are called, whether they got on, when the next may begin. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cosmos_operator.api.status import Attempt, Condition
from cosmos_operator.decide.times import parse_time

MAX_LISTED = 10
MAX_BACKOFF_S = 300.0
FAILURES_WITHOUT_PROGRESS = 2
GPU_FAULTS_WITHOUT_PROGRESS = 5
"""So many GPUs in a row do not break: rather the image or the driver is wrong."""
UNLIMITED_BY_TIME = ("Suspended",)
"""Outcomes after which the next attempt begins at once."""


def progressed(attempt: Attempt) -> bool:
    """Whether an attempt did any step beyond the one that it continued from."""
    return (attempt.end_step or 0) > (attempt.start_step or 0)


def since_resumed(
    attempts: Sequence[Attempt], conditions: Sequence[Condition]
) -> tuple[Attempt, ...]:
    """Attempts of after the last change that let a failed job go on: somebody may have mended what broke them."""
    failed = next((one for one in conditions if one.type == "Failed"), None)
    if failed is None:
        return tuple(attempts)
    running = tuple(one for one in attempts if one.finish_time is None)
    if failed.status == "True":
        return running
    since = parse_time(failed.last_transition_time)
    ended = (one for one in attempts if one.finish_time is not None)
    return (*(one for one in ended if parse_time(str(one.finish_time)) >= since), *running)


def since_suspended(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Attempts of after the last one that was suspended."""
    ended = [i for i, one in enumerate(attempts) if one.outcome == "Suspended"]
    return tuple(attempts[ended[-1] + 1 :] if ended else attempts)


def is_hopeless(attempts: Sequence[Attempt]) -> bool:
    """Whether the last attempts all failed without getting on: another one would end in the same way."""
    idle = [attempt for attempt in attempts if not progressed(attempt)]
    failed, faults = attempts[-FAILURES_WITHOUT_PROGRESS:], attempts[-GPU_FAULTS_WITHOUT_PROGRESS:]
    if len(failed) == FAILURES_WITHOUT_PROGRESS and all(a.counted and a in idle for a in failed):
        return True
    return len(faults) == GPU_FAULTS_WITHOUT_PROGRESS and all(
        a.outcome == "GpuFault" and a in idle for a in faults
    )


def backoff_s(attempts: Sequence[Attempt], first_s: float) -> float:
    """Seconds between the end of the last attempt and the next."""
    last = attempts[-1]
    if last.outcome in UNLIMITED_BY_TIME or (progressed(last) and not last.counted):
        return 0.0
    idle = 0
    for attempt in reversed(attempts):
        if progressed(attempt) or attempt.outcome in UNLIMITED_BY_TIME:
            break
        idle += 1
    delay: float = first_s * 2.0 ** max(0, idle - 1)
    return min(delay, MAX_BACKOFF_S)


def wait_s(attempts: Sequence[Attempt], first_s: float, now: datetime) -> float:
    """Seconds from now until the next attempt may begin."""
    last = attempts[-1]
    if last.finish_time is None:
        return 0.0
    passed = (now - parse_time(last.finish_time)).total_seconds()
    return max(0.0, backoff_s(attempts, first_s) - passed)


def listed(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """The attempts that the status shows."""
    return tuple(attempts[-MAX_LISTED:])


def changed(attempt: Attempt, **values: object) -> Attempt:
    """A copy with other values; None leaves a value as it is."""
    return attempt.model_copy(update={k: v for k, v in values.items() if v is not None})
