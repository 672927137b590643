"""Runs many schedules, and says what they were."""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from support.crash_sweep.machine import CrashSweep

STEPS = 12
"""Steps of a schedule, at most."""
PART = 20
"""Schedules that one seed chooses; the next twenty have the next seed."""


def run_sweep(
    schedules: int,
    first_seed: int,
    *,
    steps: int = STEPS,
    seconds: float = float("inf"),
    tell: Callable[[Counter[str]], object] = lambda totals: None,
) -> Counter[str]:
    """Run schedules, which the seed chooses; returns sums over all of them.

    Args:
        schedules: how many.
        first_seed: of the first twenty.
        steps: most steps of a schedule.
        seconds: no further twenty are begun after this time.
        tell: called with the sums after each twenty.

    Raises:
        AssertionError: a rule was broken; hypothesis prints the schedule.
    """
    CrashSweep.totals = Counter()
    end = time.monotonic() + seconds
    with _quietly():
        for number, done in enumerate(range(0, schedules, PART)):
            if time.monotonic() >= end:
                break
            _run_part(min(PART, schedules - done), first_seed + number, steps)
            tell(CrashSweep.totals)
    return CrashSweep.totals


def _run_part(schedules: int, seed_of_part: int, steps: int) -> None:
    options = settings(
        max_examples=schedules,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(seed_of_part)(CrashSweep), settings=options)  # type: ignore[arg-type]
    except AssertionError as error:
        schedule = "\n".join(getattr(error, "__notes__", ()))
        raise AssertionError(
            f"{error}\n{schedule}\nfound after {CrashSweep.totals['schedules']} schedules; again: "
            f"make operator-sweep SCHEDULES={schedules} SEED={seed_of_part}"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the operator's log, as every fault is intended; and with less time for the search of garbage."""
    level, threshold = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 20)
    try:
        yield
    finally:
        logging.disable(level)
        gc.set_threshold(*threshold)
