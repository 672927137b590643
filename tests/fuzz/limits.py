"""Inputs tried in a child process with limits of time and memory: one that reaches a limit, or ends it, is a fault."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

CPU_S = 20
"""Seconds of processor time that one input may take."""
WALL_S = 300.0
"""Seconds that one input may take, with the pauses of a busy machine."""
MEMORY_BYTES = 1 << 30
"""Bytes that a child may allocate beyond what it starts with."""
MAX_MESSAGE = 4096

Try = Callable[[Any, Path], str]
"""Tries an input in an empty folder: ``accepted``, or the message by which it is refused. Raises what is a fault."""


@dataclass(frozen=True)
class Fault:
    """An input that is neither taken nor refused in a line."""

    number: int
    """Position of the input."""
    what: str


@dataclass
class Outcomes:
    """What became of the inputs of a target."""

    counts: Counter[str] = field(default_factory=Counter)
    """``accepted`` and ``refused`` → number of inputs."""
    faults: list[Fault] = field(default_factory=list)
    slowest_s: float = 0.0
    """Processor time of the slowest input."""


def try_all(
    attempt: Try, inputs: Sequence[Any], folder: Path, memory: int = MEMORY_BYTES
) -> Outcomes:
    """Try inputs one after the other, in as few child processes as possible.

    Args:
        attempt: tries one.
        inputs: the inputs.
        folder: for files of the inputs; it is emptied by ``attempt``.
        memory: bytes that a child may allocate.
    """
    outcomes, number = Outcomes(), 0
    while number < len(inputs):
        number = _run_child(attempt, inputs, number, folder, memory, outcomes)
    return outcomes


def _run_child(
    attempt: Try, inputs: Sequence[Any], first: int, folder: Path, memory: int, outcomes: Outcomes
) -> int:
    """Try inputs until the end, or until one ends the child; returns the number of the next one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _try_in_child(attempt, inputs, first, folder, memory, writer)
        finally:
            os._exit(0)
    os.close(writer)
    number, end = first, monotonic() + WALL_S
    with os.fdopen(reader, "rb", buffering=0) as stream:
        rest = b""
        while True:
            ready, _, _ = select.select([stream], [], [], max(0.0, end - monotonic()))
            piece = os.read(stream.fileno(), 1 << 16) if ready else b""
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                _record(json.loads(line), number, outcomes)
                number, end = number + 1, monotonic() + WALL_S
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if number < len(inputs):
        said = f"no answer within {WALL_S:g} s" if not ready else _describe_end(status)
        outcomes.faults.append(Fault(number, said))
        number += 1
    return number


def _describe_end(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"the process ended with code {os.waitstatus_to_exitcode(status)}"
    if os.WTERMSIG(status) == signal.SIGXCPU:
        return f"more than {CPU_S} s of processor time"
    return f"the process was ended by signal {signal.Signals(os.WTERMSIG(status)).name}"


def _record(said: dict[str, Any], number: int, outcomes: Outcomes) -> None:
    outcomes.slowest_s = max(outcomes.slowest_s, said["seconds"])
    if said["fault"]:
        outcomes.faults.append(Fault(number, said["fault"]))
    else:
        outcomes.counts[said["answer"]] += 1


def _try_in_child(
    attempt: Try, inputs: Sequence[Any], first: int, folder: Path, memory: int, writer: int
) -> None:
    faulthandler.disable()  # of pytest: the parent tells of a crash
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    for one in inputs[first:]:
        before = _cpu_s()
        resource.setrlimit(resource.RLIMIT_CPU, (int(before) + CPU_S + 1, resource.RLIM_INFINITY))
        answer = fault = ""
        try:
            message = attempt(one, folder)
            answer, fault = ("accepted", "") if message == "accepted" else _judge(message)
        except MemoryError:
            fault = f"more than {memory >> 20} MiB of memory"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            fault = (
                f"{type(error).__name__}: {str(error)[:200]!r} at {place.filename}:{place.lineno}"
            )
        said = {"answer": answer, "fault": fault, "seconds": _cpu_s() - before}
        os.write(writer, (json.dumps(said) + "\n").encode())


def _judge(message: str) -> tuple[str, str]:
    """What is wrong with the message of a refusal, if anything is."""
    if not message.strip():
        return "", "refused without a word"
    if len(message) > MAX_MESSAGE:
        return "", f"refused with {len(message)} characters: {message[:100]!r}"
    odd = next((char for char in message if not char.isprintable()), "")
    if odd:
        return "", f"refused with the character {odd!r}: {message[:200]!r}"
    return "refused", ""


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
