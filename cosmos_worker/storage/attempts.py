"""The attempts of a training, as its processes record them in the run's folder: begin, end, GPUs. No torch here.

The record is for people. What the operator decides does not depend on it: attempts whose pods never began to train
are not in it, and a process that was killed leaves a begin without an end.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosmos_worker.config.addresses import redacted
from cosmos_worker.config.log_lines import escaped

logger = logging.getLogger(__name__)

ATTEMPTS_FILE = "attempts.jsonl"
MAX_END = 400
"""Characters of the sentence on an attempt's end."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a training.

    Attributes:
        began: seconds since the epoch.
        gpus: GPUs of all processes; 0 on the CPU.
        processes: number of them.
        node: of the main process; empty if it is not known.
        job: name of the job, or empty.
        ended: seconds since the epoch; None = it still trains, or was killed.
        end: how it ended, as a sentence; empty if it is not known.
    """

    began: float
    gpus: int = 0
    processes: int = 1
    node: str = ""
    job: str = ""
    ended: float | None = None
    end: str = ""

    def seconds(self, last_sign: float) -> float:
        """Duration; an attempt without an end lasted until the run's last sign of life."""
        return max(0.0, (last_sign if self.ended is None else self.ended) - self.began)


@contextmanager
def recorded_attempt(
    run: Path, attempt: Attempt, clock: Callable[[], float] = time.time
) -> Iterator[None]:
    """A block whose begin and end are recorded; a volume that refuses it costs the record, not the training.

    Args:
        run: folder of the run.
        attempt: what is known at its begin.
        clock: seconds since the epoch.
    """
    _append(run, {"began": attempt.began, "gpus": attempt.gpus, "processes": attempt.processes,
                  "node": attempt.node, "job": attempt.job})  # fmt: skip
    end = "trained all its steps"
    try:
        yield
    except BaseException as error:
        end = escaped(redacted(f"{type(error).__name__}: {error}"))[:MAX_END]
        raise
    finally:
        _append(run, {"ended": clock(), "end": end})


def _append(run: Path, line: dict[str, Any]) -> None:
    try:
        with (run / ATTEMPTS_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    except OSError as error:
        logger.warning("%s is left out (%s)", run / ATTEMPTS_FILE, error.strerror)


def read_attempts(run: Path) -> list[Attempt]:
    """The recorded attempts, the earliest first; lines that are cut off or something else are left out.

    The end of an attempt that was killed is not known: it is taken for the begin of the next one, at most.
    """
    path = run / ATTEMPTS_FILE
    try:
        lines = [] if path.is_symlink() else path.read_bytes().split(b"\n")
    except OSError:
        return []
    found: list[Attempt] = []
    for text in lines:
        try:
            line = json.loads(text) if text else {}
            if "began" in line:
                found.append(_begun(line))
            elif "ended" in line and found and found[-1].ended is None:
                ended = _seconds(line["ended"])
                found[-1] = replace(found[-1], ended=ended, end=str(line["end"])[:MAX_END])
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return found


def _begun(line: dict[str, Any]) -> Attempt:
    return Attempt(
        _seconds(line["began"]),
        int(line["gpus"]),
        int(line["processes"]),
        str(line["node"]),
        str(line["job"]),
    )


def _seconds(value: Any) -> float:  # noqa: ANN401 - any JSON value
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(value)
    return seconds
