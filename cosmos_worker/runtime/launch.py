"""Starts the training processes of this node through torchrun, and reports why they ended. No torch here.

In a pod this is process 1. A stop request goes to the training processes themselves, never to torchrun, which would
kill them 30 s later: they save together and leave with success, and only this parent turns that into the exit code
EXIT_CONTINUE. The records that the processes leave in a folder (``outcome.py``) become one termination message.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from cosmos_worker.errors import EXIT_CONTINUE, EXIT_OK, EXIT_SIGNAL
from cosmos_worker.runtime import (
    outcome as outcomes,
)
from cosmos_worker.runtime.cgroup import count_oom_kills
from cosmos_worker.runtime.failures import find_cause
from cosmos_worker.runtime.outcome import (
    OUTCOMES_VARIABLE,
    Outcome,
    Position,
)
from cosmos_worker.runtime.process_group import RANK_VARIABLES
from cosmos_worker.runtime.rendezvous import (
    Rendezvous,
    read_seconds,
    wait_for_address,
)
from cosmos_worker.runtime.signals import (
    STOP_SIGNALS,
    terminate_with_parent,
)

logger = logging.getLogger(__name__)

ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables of PyTorch's allocator, of which releases before 2.10 know the second."""
SAVE_VARIABLE = "COSMOS_SAVE_SECONDS"
DEFAULT_SAVE_S = 240
"""Time to save after SIGTERM; must be less than the pod's terminationGracePeriodSeconds."""
POLL_S = 0.2
TAIL_BYTES = 1 << 16
SHUTDOWN_VARIABLE = "TORCHELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that torchrun waits before it kills when it gets SIGTERM itself, which happens if its launcher is killed."""


def child_processes(pid: int) -> Iterator[int]:
    """Direct children of a process (Linux)."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from (int(child) for child in task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # the thread ended while we looked
            continue


def descendants(pid: int) -> list[int]:
    """All processes below a process."""
    children = list(child_processes(pid))
    return [*children, *(below for child in children for below in descendants(child))]


@dataclass
class StopRequest:
    """SIGTERM or SIGINT of this process as a request to stop, with a deadline for saving."""

    save_s: int
    """Seconds from the request to the deadline."""
    since: float | None = None
    """Time of the request, as of time.monotonic()."""
    is_overdue: bool = False
    """True if the deadline passed, so that the processes were killed."""

    @property
    def is_made(self) -> bool:
        """True if the request was made."""
        return self.since is not None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler; a second request changes nothing, so that the first keeps its deadline."""
        if self.since is None:
            self.since = time.monotonic()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Catch SIGTERM and SIGINT inside the block."""
        previous = {number: signal.signal(number, self.receive) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def has_nvidia_gpu() -> bool:
    """True if this machine or container has a device of NVIDIA's driver."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def allocator_settings(environment: Mapping[str, str], has_gpu: bool) -> dict[str, str]:
    """Variables with which PyTorch's allocator grows its segments, so that less memory is lost between tensors.

    Args:
        environment: what it says about the allocator is kept.
        has_gpu: without a GPU nothing is set.
    """
    if not has_gpu or any(environment.get(name) for name in ALLOCATOR_VARIABLES):
        return {}
    # releases before 2.10 know the second name only
    major, minor = (int(part) for part in version("torch").split(".")[:2])
    name = ALLOCATOR_VARIABLES[0 if (major, minor) >= (2, 10) else 1]
    return {name: "expandable_segments:True"}


@dataclass
class Agent:
    """The torchrun process of this node, and the training processes below it."""

    process: subprocess.Popen[bytes]
    folder: Path
    asked: set[int] = field(default_factory=set)
    """Processes that were asked to stop."""

    @classmethod
    def start(cls, arguments: Sequence[str], folder: Path, save_s: int, tee: bool) -> Agent:
        """Start torchrun, in a session of its own: Ctrl-C on the terminal reaches the launcher only."""
        environment = {**os.environ, OUTCOMES_VARIABLE: str(folder)}
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment |= allocator_settings(environment, has_nvidia_gpu())
        environment.setdefault(SHUTDOWN_VARIABLE, str(save_s))
        for variable in RANK_VARIABLES:
            environment.pop(variable, None)
        process = subprocess.Popen(
            [sys.executable, "-m", "cosmos_worker.runtime.torchrun_agent", *arguments],
            env=environment,
            start_new_session=True,
            preexec_fn=terminate_with_parent,
            stderr=subprocess.PIPE if tee else None,
        )
        return cls(process, folder)

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the training processes that have not had it; torchrun may start some later."""
        for rank in set(child_processes(self.process.pid)) - self.asked:
            with suppress(ProcessLookupError):
                os.kill(rank, signal.SIGTERM)
            self.asked.add(rank)

    def kill(self) -> None:
        """Kill torchrun and all processes below it."""
        below = descendants(self.process.pid)
        self.process.kill()
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait(self, stop: StopRequest) -> int:
        """Wait for torchrun's end and pass on a stop request; returns its exit code, or minus the number of the signal.

        Processes that have not begun to train have nothing to save and may wait for peers that do not come: they are
        killed at once. Processes that do not end before the deadline are killed then.
        """
        was_announced = False
        while True:
            agent_code = self.process.poll()
            if agent_code is not None:
                return agent_code
            time.sleep(POLL_S)
            if stop.since is None:
                continue
            if not was_announced:
                was_announced = True
                logger.info("stop requested; waiting for the processes to save and end")
            if not outcomes.has_position(self.folder):
                self.kill()
            elif time.monotonic() - stop.since > stop.save_s:
                stop.is_overdue = True
                self.kill()
            else:
                self.ask_to_stop()


class LogTail:
    """Copies torchrun's standard error to this process's and keeps the last TAIL_BYTES of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._tail = bytearray()
        self._thread = threading.Thread(target=self._pass_on, args=(process,), daemon=True)
        if process.stderr is not None:
            self._thread.start()

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            while piece := os.read(stream.fileno(), TAIL_BYTES):
                # our standard error may be closed; the pipe must be emptied all the same
                with suppress(OSError):
                    sys.stderr.buffer.write(piece)
                    sys.stderr.buffer.flush()
                self._tail += piece
                del self._tail[:-TAIL_BYTES]

    def text(self) -> str:
        """The kept end of the stream, once everything that the ended processes wrote has been read."""
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        return self._tail.decode(errors="replace")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # a process that outlives torchrun may still write into it
    with tempfile.TemporaryDirectory(prefix="cosmos-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def launch(stage: str, config: Path, overrides: Sequence[str], processes: int) -> int:
    """Run a stage with this many processes on this node; returns the exit code of the worker.

    Args:
        stage: a stage that several processes can share.
        config: stage document.
        overrides: key.sub=value.
        processes: number of processes on this node.

    Raises:
        ConfigError: the rendezvous in the environment is wrong.
        RetryableError: the first node's name has no address.
    """
    program = ["--module", "cosmos_worker.cli", stage, "--config", str(config)]
    for override in overrides:
        program += ["--set", override]
    return launch_program(program, processes, os.environ)


def launch_program(program: Sequence[str], processes: int, environment: Mapping[str, str]) -> int:
    """Run a program of torchrun with this many processes, report how it ended; returns the exit code.

    Raises:
        ConfigError: the rendezvous in the environment is wrong.
        RetryableError: the first node's name has no address.
    """
    stop = StopRequest(read_seconds(environment, SAVE_VARIABLE, DEFAULT_SAVE_S))
    with stop.listening(), _temporary_folder() as folder:
        rendezvous = Rendezvous.from_environment(environment)
        if rendezvous.nodes > 1 and not wait_for_address(rendezvous, lambda: stop.is_made):
            message = "stopped while waiting for the first node"
            return report(Outcome(EXIT_CONTINUE, "Stopped", message), Position())
        kills_before = count_oom_kills()
        # on a terminal the processes need it themselves, for their progress bar
        tee = not sys.stderr.isatty()
        arguments = [*rendezvous.torchrun_arguments(processes), *program]
        agent = Agent.start(arguments, folder, stop.save_s, tee)
        log = LogTail(agent.process)
        agent_code = agent.wait(stop)
        records = outcomes.read_records(folder)
        outcome = find_cause(
            records,
            agent_code,
            log.text(),
            memory_ran_out=count_oom_kills() > kills_before,
            nothing_to_save=stop.is_made and not outcomes.has_position(folder),
        )
    if stop.is_overdue and outcome.exit_code != EXIT_OK and not records.outcomes:
        outcome = overdue(stop.save_s, records.position)
    return report(outcome, records.position)


def overdue(save_s: int, position: Position) -> Outcome:
    """The outcome of processes that were killed because they did not end after a stop request."""
    saved = "any step" if position.checkpoint is None else f"step {position.checkpoint}"
    return Outcome(
        EXIT_SIGNAL + signal.SIGTERM,
        "Killed",
        f"killed {save_s} s after SIGTERM: no checkpoint was saved since {saved}; raise {SAVE_VARIABLE} and the "
        "pod's grace period, or look for a peer that hangs",
    )


def report(outcome: Outcome, position: Position) -> int:
    """Write the termination message and a log line; returns the exit code."""
    details = position.details()
    if outcome.exit_code != EXIT_OK and outcome.rank is not None:
        details["rank"] = outcome.rank
    result = {} if outcome.result is None else {"result": outcome.result}
    outcomes.write_termination_message(outcome.reason, outcome.message, **details, **result)
    is_good = outcome.exit_code in (EXIT_OK, EXIT_CONTINUE)
    logger.log(
        logging.INFO if is_good else logging.ERROR, "%s: %s", outcome.reason, outcome.message
    )
    return outcome.exit_code
