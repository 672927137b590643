"""Runs the parts that fit into the time, in a process that is replaced when it breaks. No torch here."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Protocol

from benchmarks.gpu.parts import Part

RUNAWAY = 4.0
"""Multiple of its estimate after which a part is stopped, so that one that hangs leaves time to the others."""
LEAST_LIMIT_S = 90.0
LAST_WORDS_S = 20.0
"""Time that the process is given to end by itself."""

Status = Literal["done", "failed", "left out"]
Message = tuple[str, Any]


@dataclass
class Outcome:
    """The end of a part.

    Attributes:
        part: the part.
        status: failed also if a figure is beyond its tolerance; rows of failed parts are kept.
        reason: why it failed or was left out; empty if it was done.
        rows: of its table.
        notes: lines below the table.
        seconds: that it has taken, the start of the process included; 0 if it was left out.
    """

    part: Part
    status: Status = "done"
    reason: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Measuring(Protocol):
    """Carries out one part and passes on its messages."""

    def __call__(
        self, part: Part, limit_s: float, figures: dict[str, float], hear: Callable[[Message], None]
    ) -> str | None:
        """Returns why the part failed, or None; ends within the limit."""


def run_parts(
    parts: Iterable[Part],
    measure: Measuring,
    time_left_s: Callable[[], float],
    finished: Callable[[Outcome], None],
    least_limit_s: float = LEAST_LIMIT_S,
) -> None:
    """Measure each part for which there is time, and hand on what became of it.

    Args:
        parts: in the order of their worth.
        measure: carries out one.
        time_left_s: seconds that are left for all.
        finished: called after each part, also after one that failed or was left out.
        least_limit_s: time that each part has at least before it is stopped, if so much is left.
    """
    figures: dict[str, float] = {}
    for part in parts:
        outcome, left = Outcome(part), time_left_s()
        if part.seconds > left:
            outcome.status = "left out"
            outcome.reason = (
                f"takes about {part.seconds:.0f} s, and {max(0.0, left):.0f} s were left"
            )
        else:
            limit = min(left, max(RUNAWAY * part.seconds, least_limit_s))
            began = time.monotonic()
            problems: list[str] = []
            failure = measure(part, limit, figures, _listener(outcome, figures, problems))
            outcome.seconds = time.monotonic() - began
            problems += [failure] if failure else []
            if problems:
                outcome.status, outcome.reason = "failed", "; ".join(problems)
        finished(outcome)


def _listener(
    outcome: Outcome, figures: dict[str, float], problems: list[str]
) -> Callable[[Message], None]:
    def hear(message: Message) -> None:
        kind, value = message
        if kind == "row":
            outcome.rows.append(value)
        elif kind == "note":
            outcome.notes.append(value)
        elif kind == "problem":
            problems.append(value)
        elif kind == "absence":
            outcome.status, outcome.reason = "left out", value
        else:
            figures[value[0]] = value[1]

    return hear


class MeasuringProcess:
    """A process that carries out parts; a new one takes the place of one that has ended.

    Args:
        serve: runs in the process; called with its connection and the arguments.
        arguments: for serve.
    """

    def __init__(self, serve: Callable[..., None], *arguments: object) -> None:
        self._serve, self._arguments = serve, arguments
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def __call__(
        self, part: Part, limit_s: float, figures: dict[str, float], hear: Callable[[Message], None]
    ) -> str | None:
        """See :class:`Measuring`."""
        deadline = time.monotonic() + limit_s
        connection = self._open()
        try:
            connection.send((part, figures))
            while connection.poll(max(0.0, deadline - time.monotonic())):
                kind, value = connection.recv()
                if kind == "broken":
                    self._end()
                if kind in ("end", "broken"):
                    failure: str | None = value
                    return failure
                hear((kind, value))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return f"the measuring process ended by itself with exit code {self._end()}"
        self._end()
        return f"stopped after {limit_s:.0f} s (estimate {part.seconds:.0f} s)"

    def close(self) -> None:
        """End the process."""
        if self._connection is not None and self._process is not None:
            with suppress(OSError):
                self._connection.send(None)
            self._process.join(LAST_WORDS_S)
        self._end()

    def _open(self) -> Connection:
        if self._connection is None or self._process is None or not self._process.is_alive():
            self._end()
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=self._serve, args=(theirs, *self._arguments))
            self._process.start()
            theirs.close()
        return self._connection

    def _end(self) -> int | None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        process.join(1.0)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode
