"""SIGTERM and SIGINT: end a stage at once, or finish the step, save and leave. No torch here.

For every stage but the training, which saves first (``stop.py``). A stage may be ended anywhere: its files
are whole or absent, and the next run continues with what is there.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LATE_S = 10.0
"""After so long a stop no longer waits for Python: Kubernetes kills a stage 30 s after SIGTERM."""
PR_SET_PDEATHSIG = 1


class StopNow(BaseException):
    """Ends the stage; no Exception, so that no library mistakes it for a failure of its own."""


def terminate_with_parent() -> None:
    """Receive SIGTERM when the parent of this process is gone (Linux, prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    raise StopNow(signal.Signals(number).name)


def _watch(pipe: int, end: Callable[[], None]) -> None:
    """Wait for a stop signal, then give the main thread its time."""
    with os.fdopen(pipe, "rb", buffering=0) as stream:
        while received := stream.read(1):
            if received[0] in STOP_SIGNALS:
                time.sleep(LATE_S)
                end()


@contextmanager
def prompt_stop(end: Callable[[], None]) -> Iterator[None]:
    """Raise :class:`StopNow` in the main thread when a stop is asked for.

    Args:
        end: called in another thread if the process lives on :data:`LATE_S` later, because the main thread sits in
            native code or threads of a library do not end; it must end the process.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=(reader, end), daemon=True).start()
    previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    previous = [signal.signal(number, _raise_stop) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(STOP_SIGNALS, previous, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_writer)
        os.close(writer)  # ends the watch, unless a stop has begun


class StopSignal:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.requested = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Catch SIGTERM and SIGINT inside the block."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = [signal.signal(number, self._on_signal) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)
