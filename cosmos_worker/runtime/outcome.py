"""Records of processes' ends and positions: for the launcher as files, for Kubernetes as the termination message.

torchrun does not pass on exit codes. So each process writes why it ended and, while it trains, its position; the agent
(``torchrun_agent.py``) adds the exit codes and signals of all. The launcher reads these files when they have ended.

No torch here.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cosmos_worker.runtime.last_lines import last_lines
from cosmos_worker.runtime.process_group import ProcessGroup

logger = logging.getLogger(__name__)

OUTCOMES_VARIABLE = "COSMOS_OUTCOMES"
"""Environment variable with the folder of the records; the launcher sets it for the processes that it starts."""
EXITS_FILE = "exits.json"
AGENT_FILE = "agent.json"
POSITION_BYTES = 80
TERMINATION_BYTES = 4096
TERMINATION_VARIABLE = "COSMOS_TERMINATION_LOG"
"""Environment variable with the path of the termination message: in a pod /dev/termination-log."""
NODE_VARIABLE = "NODE_NAME"
"""Environment variable with the name of the Kubernetes node."""


@dataclass(frozen=True)
class Outcome:
    """The end of a process: exit code and reason as the operator knows them (docs), and one line for people."""

    exit_code: int
    reason: str
    message: str
    rank: int | None = None
    time_ns: int = 0
    """Time of recording, which orders failures of one kind."""
    result: dict[str, Any] | None = None
    """The result of a successful stage."""


@dataclass(frozen=True)
class Exit:
    """The exit of a process as the system reports it."""

    rank: int
    code: int
    """Exit code, or minus the number of the signal."""
    delay_s: float = 0.0
    """Seconds after the first process that failed."""


@dataclass(frozen=True)
class Position:
    """Position of a training: steps done, and the step of the latest complete checkpoint; None = not known."""

    step: int | None = None
    checkpoint: int | None = None

    def details(self) -> dict[str, int]:
        """The numbers that are known, for the termination message."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Records:
    """All records in the folder."""

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    """Outcomes by rank."""
    exits: tuple[Exit, ...] = ()
    agent: Outcome | None = None
    """An error of torchrun itself."""
    position: Position = Position()


def folder_of(environment: Mapping[str, str]) -> Path | None:
    """The folder of the records; None without a launcher."""
    name = environment.get(OUTCOMES_VARIABLE)
    return Path(name) if name else None


def _write(path: Path, value: object) -> None:
    """Write a file so that it is whole or absent if this process dies; it need not survive a crash of the machine."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


def write_outcome(folder: Path, outcome: Outcome, rank: int) -> None:
    """Write the outcome of a rank."""
    record = replace(outcome, rank=rank, time_ns=time.time_ns())
    _write(folder / f"rank-{rank}.json", asdict(record))


def write_agent_outcome(folder: Path, outcome: Outcome) -> None:
    """Write an error of torchrun itself."""
    _write(folder / AGENT_FILE, asdict(outcome))


def write_exits(folder: Path, exits: list[Exit]) -> None:
    """Write the exits of failed processes as torchrun reports them."""
    _write(folder / EXITS_FILE, [asdict(one) for one in exits])


class PositionFile:
    """The file in which a rank writes its position for the launcher; every rank does, so that any may be killed.

    It is overwritten in place after each step by a single system call, so that it is whole if the process dies.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._handle: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> PositionFile:
        """The file of this process; without a launcher, none."""
        folder = folder_of(environment)
        return cls(
            folder and folder / f"position-{ProcessGroup.from_environment(environment).rank}.json"
        )

    def write(self, step: int, checkpoint: int | None) -> None:
        """Write the number of steps done and the step of the latest complete checkpoint."""
        if self.path is None:
            return
        text = json.dumps(asdict(Position(step, checkpoint))).ljust(POSITION_BYTES)
        with suppress(OSError):  # no reason to end a training
            if self._handle is None:
                self._handle = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o644)
            os.pwrite(self._handle, text.encode(), 0)


def has_position(folder: Path) -> bool:
    """True if a process of this node has begun to train."""
    return any(folder.glob("position-*.json"))


def _read(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))


def read_records(folder: Path) -> Records:
    """All records of the folder."""
    outcomes = [Outcome(**_read(path)) for path in folder.glob("rank-*.json")]
    paths = [path for path in folder.glob("position-*.json") if path.stat().st_size]
    positions = [Position(**_read(path)) for path in paths]
    exits, agent = folder / EXITS_FILE, folder / AGENT_FILE
    steps = [one.step for one in positions if one.step is not None]
    saved = [one.checkpoint for one in positions if one.checkpoint is not None]
    return Records(
        {one.rank: one for one in outcomes if one.rank is not None},
        tuple(Exit(**one) for one in _read(exits)) if exits.exists() else (),
        Outcome(**_read(agent)) if agent.exists() else None,
        Position(max(steps, default=None), max(saved, default=None)),
    )


def node_name(environment: Mapping[str, str]) -> str:
    """Name of the node that this process runs on; the host's name outside Kubernetes."""
    return environment.get(NODE_VARIABLE) or socket.gethostname()


def _strict(value: Any) -> Any:  # noqa: ANN401 - JSON values
    """The value with null for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return value


def _one_line(message: str) -> str:
    """Lines joined by semicolons."""
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())


def build_termination_message(reason: str, message: str, details: Mapping[str, Any]) -> str:
    """The termination message as JSON of at most TERMINATION_BYTES.

    The last lines of the log are dropped first, then large results; then the message is cut.

    A result without its dropped values names them in ``omitted``.
    """
    record = {"reason": reason, "message": _one_line(message), **_strict(dict(details))}
    while len(text := json.dumps(record)) > TERMINATION_BYTES:
        if record.pop("lines", None):
            continue
        result = record.get("result") or {}
        sizes = {name: len(json.dumps(value)) for name, value in result.items()}
        omitted = result.get("omitted", [])
        sizes.pop("omitted", None)
        if sizes:
            largest = max(sizes, key=sizes.__getitem__)
            kept = {name: value for name, value in result.items() if name != largest}
            record["result"] = {**kept, "omitted": [*omitted, largest]}
        elif result:
            del record["result"]
        else:
            record["message"] = record["message"][: len(record["message"]) // 2] + "…"
    return text


def write_termination_message(reason: str, message: str, **details: Any) -> None:  # noqa: ANN401 - JSON values
    """Write the termination message ``{reason, message, ...}``; nothing is written if no path is set.

    Args:
        reason: CamelCase word, as of :class:`Outcome`.
        message: for people; becomes one line.
        details: step, checkpoint, rank, result.
    """
    target = os.environ.get(TERMINATION_VARIABLE)
    if not target:
        return
    lines = last_lines()
    said = {"node": node_name(os.environ), **details, **({"lines": lines} if lines else {})}
    text = build_termination_message(reason, message, said)
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:  # the exit code says the most important part
        logger.warning("%s: the termination message cannot be written: %s", target, error)
