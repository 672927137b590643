"""The wait before the next attempt, and the point at which another attempt is pointless. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cosmos_operator.api.status import Attempt
from cosmos_operator.kube.objects import parse_time

MAX_BACKOFF_S = 300.0
FIRST_PARTIAL_START_WAIT_S = 30.0
"""Shortest time for which an attempt that got only some of its nodes leaves them to others."""
FAILURES_WITHOUT_PROGRESS = 2
"""Counted failures in a row without a step of progress after which the job fails."""
GPU_FAULTS_WITHOUT_PROGRESS = 5
"""GPU faults in a row after which the image or the driver is rather wrong than so many GPUs."""
OUTCOMES_OF_PEOPLE = ("Suspended", "Edited")
"""Outcomes of attempts that people stopped."""
OUTCOMES_WITHOUT_WAIT = (*OUTCOMES_OF_PEOPLE, "Unattended")
"""Outcomes after which the next attempt begins at once."""


def made_progress(attempt: Attempt) -> bool:
    """True if an attempt did any step beyond the one that it continued from."""
    return (attempt.end_step or 0) > (attempt.start_step or 0)


def since_stopped(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Attempts since the last one that people stopped, by a suspension or an edit."""
    ended = [i for i, one in enumerate(attempts) if one.outcome in OUTCOMES_OF_PEOPLE]
    return tuple(attempts[ended[-1] + 1 :] if ended else attempts)


def is_hopeless(attempts: Sequence[Attempt]) -> bool:
    """True if the last attempts all failed without progress, so that another one would end in the same way."""
    idle = [attempt for attempt in attempts if not made_progress(attempt)]
    failed, faults = attempts[-FAILURES_WITHOUT_PROGRESS:], attempts[-GPU_FAULTS_WITHOUT_PROGRESS:]
    if len(failed) == FAILURES_WITHOUT_PROGRESS and all(a.counted and a in idle for a in failed):
        return True
    return len(faults) == GPU_FAULTS_WITHOUT_PROGRESS and all(
        a.outcome == "GpuFault" and a in idle for a in faults
    )


def backoff_s(attempts: Sequence[Attempt], first_s: float) -> float:
    """Seconds between the end of the last attempt and the next; they double with each attempt without progress."""
    last = attempts[-1]
    if last.outcome in OUTCOMES_WITHOUT_WAIT or (made_progress(last) and not last.counted):
        return 0.0
    idle = 0
    for attempt in reversed(attempts):
        if made_progress(attempt) or attempt.outcome in OUTCOMES_WITHOUT_WAIT:
            break
        idle += 1
    delay: float = first_s * 2.0 ** max(0, idle - 1)
    return min(delay, MAX_BACKOFF_S)


def partial_start_wait_s(attempts: Sequence[Attempt], uid: str) -> float:
    """Seconds between giving back the pods of an attempt that got only some of its nodes, and the next attempt.

    They double with each such attempt in a row, and differ between jobs, so that two jobs that have taken nodes from
    each other do not do so again.
    """
    tries = 0
    for attempt in reversed(attempts):
        if attempt.outcome != "PartialStart":
            break
        tries += 1
    digest = hashlib.sha256(f"{uid}/{tries}".encode()).digest()
    delay = FIRST_PARTIAL_START_WAIT_S * 2.0 ** max(0, tries - 1)
    return float(min(delay, MAX_BACKOFF_S) * (1 + digest[0] / 255))


def wait_s(attempts: Sequence[Attempt], first_s: float, now: datetime, uid: str) -> float:
    """Seconds from now until the next attempt of the job with this uid may begin."""
    last = attempts[-1]
    if last.finish_time is None:
        return 0.0
    passed = (now - parse_time(last.finish_time)).total_seconds()
    is_partial = last.outcome == "PartialStart"
    wait = partial_start_wait_s(attempts, uid) if is_partial else backoff_s(attempts, first_s)
    return max(0.0, wait - passed)
