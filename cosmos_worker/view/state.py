"""State and progress of a run, told from its files alone. No torch here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from cosmos_worker.report.words import format_minutes
from cosmos_worker.storage.attempts import Attempt, read_attempts
from cosmos_worker.storage.volumes import RESOLVED_CONFIG_FILE
from cosmos_worker.view.figures import FigureFiles, number_of
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.jobs import Job

MAX_STEPS = re.compile(r"^ +max_steps: (\d+)$", re.MULTILINE)
LOG_EVERY = re.compile(r"^ +log_every_steps: (\d+)$", re.MULTILINE)
SILENCE_S = 600.0
"""Seconds without a sign of life after which a run counts as stopped."""
SILENT_INTERVALS = 5
"""Intervals of the log without a line after which a run counts as stopped, if these are longer."""

FINISHED, TRAINING, STOPPED, GENERATED = "finished", "training", "stopped", "generated"
STATES = (TRAINING, STOPPED, FINISHED, GENERATED)
"""generated: a job without a training of its own."""


@dataclass(frozen=True)
class RunState:
    """The state of a job's run.

    Attributes:
        state: one of `STATES`.
        why: the last attempt's end as a sentence, or what the state was told from.
        step: optimizer steps done, as far as they were logged.
        max_steps: steps of the run; None if it is not known.
        loss: last logged training loss; None if there is none.
        held_out: last held-out loss; None if there is none.
        seconds_left: estimate for a run that trains; None if it is not known.
        attempts: those that were recorded, the earliest first.
        changed: seconds since the epoch of the last sign of life.
    """

    state: str
    why: str
    step: int
    max_steps: int | None
    loss: float | None
    held_out: float | None
    seconds_left: float | None
    attempts: tuple[Attempt, ...]
    changed: float

    @property
    def share(self) -> float | None:
        """Share of the steps that are done, 0 to 1."""
        return min(1.0, self.step / self.max_steps) if self.max_steps else None

    @property
    def gpu_hours(self) -> float | None:
        """GPUs times hours over all attempts that were recorded; None without a GPU or without a record."""
        hours = sum(one.gpus * one.seconds(self.changed) for one in self.attempts) / 3600
        return hours if any(one.gpus for one in self.attempts) else None


def read_state(
    folders: Folders, figures: FigureFiles, job: Job, clock: Callable[[], float] = time.time
) -> RunState:
    """The state of a job: reads the run's configuration, its attempts and the end of its figures.

    Args:
        folders: that are shown.
        figures: of their runs.
        job: the job.
        clock: seconds since the epoch.
    """
    if job.run is None:
        return RunState(GENERATED, "videos of a model that another job has trained", 0, None, None, None, None, (),
                        job.changed)  # fmt: skip
    last = figures.last(job.run)
    config = folders.text(job.run / RESOLVED_CONFIG_FILE) or ""
    attempts = tuple(read_attempts(job.run))
    step = int(number_of(last, "step") or 0)
    found = MAX_STEPS.search(config)
    max_steps = int(found[1]) if found else None
    pace = number_of(last, "seconds_per_step")
    every = LOG_EVERY.search(config)
    interval = (pace or 0.0) * (int(every[1]) if every else 0)
    age = clock() - job.changed
    state, why = _state_of(job, attempts, age, max(SILENCE_S, SILENT_INTERVALS * interval))
    left = None
    if state == TRAINING and pace is not None and max_steps is not None:
        left = max(0, max_steps - step) * pace
    return RunState(
        state, why, step, max_steps, number_of(last, "loss"), number_of(last, "validation_loss"), left, attempts,
        job.changed,
    )  # fmt: skip


def _state_of(
    job: Job, attempts: tuple[Attempt, ...], age: float, silence: float
) -> tuple[str, str]:
    if job.is_complete:
        return FINISHED, "its completion marker is there"
    if attempts and attempts[-1].ended is not None:
        return STOPPED, attempts[-1].end or "ended"
    if age < silence:
        return TRAINING, f"last sign of life {format_minutes(max(0.0, age))} ago"
    return STOPPED, f"no sign of life for {format_minutes(age)}"
