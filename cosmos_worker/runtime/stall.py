"""Processes that make no progress: noticed after a time, with the stacks of all threads in the log. No torch here.

The launcher of a training watches the position files of its node's processes, which each process touches as it goes on;
one that waits for a peer which has stopped touches nothing either. Loops over clips and windows, which have no
launcher, are watched by a thread of their own process.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cosmos_worker.errors import EXIT_RETRY
from cosmos_worker.runtime.outcome import (
    Outcome,
    PositionFile,
    folder_of,
    write_outcome,
    write_termination_message,
)
from cosmos_worker.runtime.process_group import COLLECTIVE_TIMEOUT, read_rank
from cosmos_worker.runtime.rendezvous import read_seconds

logger = logging.getLogger(__name__)

STALL_VARIABLE = "COSMOS_STALL_SECONDS"
DEFAULT_STALL_S = 1500
"""Seconds without progress after which processes are ended; much longer than a step, a video or a held-out batch, and
shorter than the operator's ``stallTimeoutSeconds``, which knows no stacks."""
AFTER_STALL = timedelta(minutes=5)
LONGEST_POLL_S = 5.0
GROWTH_POLL_S = 10.0
REASON = "Stalled"


def stall_seconds(environment: Mapping[str, str]) -> int:
    """Seconds without progress after which processes are ended.

    Raises:
        ConfigError: not a whole number above 0.
    """
    return read_seconds(environment, STALL_VARIABLE, DEFAULT_STALL_S)


def collective_timeout(environment: Mapping[str, str]) -> timedelta:
    """Timeout of a training's collectives: the launcher, which has all stacks written, is to notice a hang before."""
    return max(COLLECTIVE_TIMEOUT, timedelta(seconds=stall_seconds(environment)) + AFTER_STALL)


# --- processes of a launcher ---------------------------------------------------------------------


def answer_with_stacks() -> None:
    """Write the stacks of all threads to standard error on SIGUSR1, which the launcher sends."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def beat() -> None:
    """Tell the launcher that this process makes progress between two steps, if there is a launcher."""
    path = PositionFile.from_environment(os.environ).path
    if path is not None:
        with suppress(OSError):  # not written before the first step; no reason to end a training
            os.utime(path)


@contextmanager
def beating_while_files_grow(folder: Path) -> Iterator[None]:
    """Inside, files that grow in a folder count as progress, such as a checkpoint on a slow volume."""
    ended = threading.Event()

    def watch() -> None:
        before = -1
        while not ended.wait(GROWTH_POLL_S):
            size = _bytes_in(folder)
            if size != before:
                before = size
                beat()

    thread = threading.Thread(target=watch, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        beat()


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


@dataclass
class StallWatch:
    """The progress of a node's processes as their launcher sees it.

    Attributes:
        folder: of the records.
        stall_s: seconds without progress that are too many.
    """

    folder: Path
    stall_s: float
    _newest: int = 0
    _since: float = field(default_factory=time.monotonic)
    _looked: float = field(default_factory=time.monotonic)

    def is_stalled(self) -> bool:
        """True if processes have begun to train and none has gone on for too long.

        Time in which the launcher itself did not run, as on a machine that was paused, does not count.
        """
        now = time.monotonic()
        if now - self._looked > LONGEST_POLL_S:
            self._since += now - self._looked
        self._looked = now
        newest = max((_changed_ns(path) for path in self.folder.glob("position-*.json")), default=0)
        if newest != self._newest or not newest:
            self._newest, self._since = newest, now
        return now - self._since > self.stall_s


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def ask_for_stacks(pids: list[int]) -> str:
    """Let processes write their stacks, those included that a signal has stopped.

    Returns:
        Rank and state of each as the system names it, such as ``rank 1 T (stopped)``.
    """
    states = ", ".join(f"rank {_rank_of(pid)} {_state_of(pid)}" for pid in pids)
    logger.error("no progress: %s; their stacks follow", states)
    for pid in pids:
        for number in (signal.SIGUSR1, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    return states


def _state_of(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "gone"
    return next((line[7:].strip() for line in lines if line.startswith("State:")), "unknown")


def _rank_of(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return "?"
    return read_rank(dict(one.split("=", 1) for one in text.split("\0") if "=" in one))


def stalled(stall_s: float, who: str) -> Outcome:
    """The outcome of processes that were ended because they made no progress."""
    return Outcome(
        EXIT_RETRY,
        REASON,
        f"no progress for {stall_s:.0f} s ({who}): ended, with the stacks of all threads in the log; a volume, a "
        f"peer or a decoder hangs, or {STALL_VARIABLE} is too short for this work",
    )


# --- loops of one process ------------------------------------------------------------------------


class LoopWatch:
    """Ends this process if a loop makes no progress for too long, after it has written the stacks of all threads.

    A library that hangs without letting other threads run is not noticed, nor is a process that is stopped.
    """

    def __init__(self, name: str, stall_s: float) -> None:
        self._name, self._stall_s = name, stall_s
        self._progress, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, name=f"watch {name}", daemon=True).start()

    def beat(self) -> None:
        """Note progress."""
        self._progress.set()

    def close(self) -> None:
        """End the watch."""
        self._ended.set()
        self._progress.set()

    def _watch(self) -> None:
        while not self._ended.is_set():
            if not self._waits_for_progress():
                self._end()
            self._progress.clear()

    def _waits_for_progress(self) -> bool:
        """False if there was none for too long; a pause of the whole machine counts as one short wait."""
        waited = 0.0
        while waited < self._stall_s:
            step_s = min(LONGEST_POLL_S, self._stall_s - waited)
            if self._progress.wait(step_s):
                return True
            waited += step_s
        return False

    def _end(self) -> None:
        outcome = stalled(self._stall_s, f"the loop {self._name}")
        logger.error("%s: %s", outcome.reason, outcome.message)
        faulthandler.dump_traceback(all_threads=True)
        folder = folder_of(os.environ)
        if folder is not None:
            with suppress(OSError):
                write_outcome(folder, outcome, int(read_rank(os.environ)))
        else:
            write_termination_message(outcome.reason, outcome.message)
        sys.stderr.flush()
        os._exit(outcome.exit_code)
