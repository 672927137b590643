"""A process of its own that plans jobs, so that no job can stop the operator for the others.

Planning is the one place where what a job says is computed with. It is pure, takes some ten milliseconds, and is done
in a child process with a limit of time and of memory; one that reaches a limit is ended, and its job is told. The
parent and the child send each other pickles over pipes, which nobody else can write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any, Protocol, TypeVar

from cosmos_operator.errors import ClusterUnavailable

T = TypeVar("T")
MAX_PLAN_S = 20.0
"""Seconds that one plan may take; all but those of hostile jobs take a few hundredths."""
MAX_START_S = 60.0
"""Seconds that the process may take to start."""
MAX_PLAN_BYTES = 256 << 20
"""Memory that the process may allocate; it has about 40 MiB when it has started."""
LENGTH = struct.Struct(">Q")
READY = b"ready"
KILLED_LATE_S = 5
"""Seconds after the limit at which the process ends itself, in case nobody else has."""


class PlanningFailed(Exception):  # noqa: N818 - it says what happened
    """A plan that was not made; the message says why."""


class Planner(Protocol):
    """Runs the pure functions that plan jobs."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """The result of a function.

        Raises:
            PlanningFailed: it took too much time or memory, or it raised an error.
        """
        ...


class InlinePlanner:
    """Plans in this process, without limits: for tests and for what runs once."""

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """The result of a function."""
        try:
            return function(*arguments)
        except Exception as error:
            raise PlanningFailed(_describe(error)) from error


class PlanningProcess:
    """Plans in a child process, one job after the other.

    The process is started when it is needed, and again after it was ended.

    Args:
        limit_s: seconds that one plan may take.
        max_bytes: memory that the process may allocate.
    """

    def __init__(self, limit_s: float = MAX_PLAN_S, max_bytes: int = MAX_PLAN_BYTES) -> None:
        self._limit_s, self._max_bytes = limit_s, max_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """The result of a function of this package.

        Raises:
            PlanningFailed: it took too much time or memory, or it raised an error.
            ClusterUnavailable: the process does not start.
        """
        async with self._lock:  # the time of others does not count
            process = self._process or await self._start()
            try:
                said, value = await asyncio.wait_for(
                    _ask(process, (function, arguments)), self._limit_s
                )
            except TimeoutError:
                await self.stop()
                raise PlanningFailed(f"it takes longer than {self._limit_s:g} s") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                code = await process.wait()
                await self.stop()
                raise PlanningFailed(f"its planning was ended with exit code {code}") from None
            except (
                BaseException
            ):  # such as a pass that is cancelled: the answer would meet the next question
                await self.stop()
                raise
        if not said:
            raise PlanningFailed(value)
        result: T = value
        return result

    async def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", __name__, str(self._limit_s), str(self._max_bytes)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._process = process
        assert process.stdout is not None
        try:
            await asyncio.wait_for(process.stdout.readexactly(len(READY)), MAX_START_S)
        except (TimeoutError, asyncio.IncompleteReadError):
            await self.stop()
            raise ClusterUnavailable("the process that plans jobs does not start") from None
        except BaseException:
            await self.stop()
            raise
        return process


async def _ask(process: asyncio.subprocess.Process, question: object) -> tuple[bool, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    content = pickle.dumps(question)
    process.stdin.write(LENGTH.pack(len(content)) + content)
    await process.stdin.drain()
    (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    answer: tuple[bool, Any] = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 - of our own child
    return answer


# --- the child ---------------------------------------------------------------------------------


def main(limit_s: float, max_bytes: int) -> None:
    """Answer questions on standard input until it is closed."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever is printed goes to the log
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends us
    answers.write(READY)
    answers.flush()
    while header := questions.read(LENGTH.size):
        signal.alarm(int(limit_s) + KILLED_LATE_S)
        _answer(questions.read(LENGTH.unpack(header)[0]), answers)
        signal.alarm(0)


def _answer(content: bytes, answers: IO[bytes]) -> None:
    try:
        function, arguments = pickle.loads(content)  # noqa: S301 - of our own parent
        answer = pickle.dumps((True, function(*arguments)))
    except Exception as error:  # the edge of the process: every failure is one line
        answer = pickle.dumps((False, _describe(error)))
    answers.write(LENGTH.pack(len(answer)) + answer)
    answers.flush()


def _describe(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than a plan may"
    text = " ".join(str(error).split())[:300]
    return f"a bug in the operator, please report it: {type(error).__name__}: {text}"


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
