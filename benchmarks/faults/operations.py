"""File operations of a worker's process, seen through Python's audit hook: recorded, killed, failed or slowed down.

A hook sees an operation before the system carries it out. It sees what Python code opens, renames, removes and syncs,
not the single writes into an open file, and not what a library in C or Rust opens by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Action = Literal["record", "kill", "stop", "fail", "delay"]
RENAME, REMOVE, WRITE, READ, SYNC = "rename", "remove", "write", "read", "sync"
CHANGING = (RENAME, REMOVE, WRITE, SYNC)
EVENTS = {
    "os.rename": RENAME, "os.remove": REMOVE, "os.rmdir": REMOVE, "os.mkdir": WRITE, "os.truncate": WRITE,
}  # fmt: skip
"""Audit events of Python that change files, and the kind of operation; ``open`` and ``fsync`` are told apart below."""


@dataclass(frozen=True)
class Fault:
    """One fault of one process.

    Attributes:
        root: folder; operations outside of it are ignored.
        action: record = write kind and path of each operation to ``trace``; kill, stop = SIGKILL, SIGSTOP to this
            process; fail = OSError; delay = sleep.
        first: number, from 1, of the operation at which it happens.
        count: number of operations in a row that it concerns; None = all from the first on.
        kinds: of the operations that are counted.
        part: text that the path must contain.
        error: errno of ``fail``.
        seconds: of ``delay``.
        trace: file that ``record`` appends to.
    """

    root: str
    action: Action
    first: int = 1
    count: int | None = 1
    kinds: tuple[str, ...] = CHANGING
    part: str = ""
    error: int = 0
    seconds: float = 0.0
    trace: str = ""


def install(fault: Fault) -> None:
    """Let the fault happen in this process from now on; hooks cannot be removed."""
    act = _Counter(fault)
    true_fsync = os.fsync

    def fsync(handle: int) -> None:
        act.operation(SYNC, _name_of(handle))
        true_fsync(handle)

    os.fsync = fsync
    sys.addaudithook(act.event)


def _name_of(handle: object) -> str:
    try:
        number = handle if isinstance(handle, int) else handle.fileno()  # type: ignore[attr-defined]
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except (OSError, AttributeError):
        return ""


class _Counter:
    """Counts the operations that a fault concerns, and carries it out."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.number, self.is_busy = fault, 0, False

    def event(self, name: str, arguments: tuple[object, ...]) -> None:
        """Called by Python before each audited event."""
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and isinstance(path, str | bytes | os.PathLike):
                changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                self.operation(WRITE if changes else READ, os.fsdecode(path))
        elif name in EVENTS and isinstance(arguments[0], str | bytes | os.PathLike):
            target = arguments[1] if name == "os.rename" else arguments[0]
            self.operation(EVENTS[name], os.fsdecode(target))  # type: ignore[arg-type]

    def operation(self, kind: str, path: str) -> None:
        """Count an operation, and let the fault happen if this is the one."""
        fault = self.fault
        if self.is_busy or kind not in fault.kinds or fault.part not in path:
            return
        if not path.startswith(fault.root):
            if path.startswith("/"):
                return
            path = f"{fault.root}/…/{path}"  # relative to a folder that is open, as shutil.rmtree removes
        self.number += 1
        last = float("inf") if fault.count is None else fault.first + fault.count
        if not fault.first <= self.number < last:
            return
        self.is_busy = True
        try:
            ACTIONS[fault.action](fault, kind, path)
        finally:
            self.is_busy = False


def _record(fault: Fault, kind: str, path: str) -> None:
    line = f"{kind} {path.removeprefix(fault.root + '/')}\n"
    handle = os.open(fault.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def _signal(number: int) -> Callable[[Fault, str, str], None]:
    return lambda fault, kind, path: os.kill(os.getpid(), number)


def _fail(fault: Fault, kind: str, path: str) -> None:
    raise OSError(fault.error, os.strerror(fault.error), path)


def _delay(fault: Fault, kind: str, path: str) -> None:
    time.sleep(fault.seconds)


ACTIONS: dict[str, Callable[[Fault, str, str], None]] = {
    "record": _record,
    "kill": _signal(signal.SIGKILL),
    "stop": _signal(signal.SIGSTOP),
    "fail": _fail,
    "delay": _delay,
}
