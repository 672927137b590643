"""Exit codes, and the records in which processes leave their end, for the launcher and for Kubernetes.

Exit codes do not cross torchrun. So each process writes why it ended and, while it trains, how far it is; the agent
(``torchrun_agent.py``) adds how the system saw them end. The launcher reads all of it when they are gone.

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

OUTCOMES_VARIABLE = "COSMOS_OUTCOMES"
"""Names the folder; set for processes that a launcher started."""
EXITS_FILE = "exits.json"
AGENT_FILE = "agent.json"
POSITION_BYTES = 80


@dataclass(frozen=True)
class Outcome:
    """Why a process ended: an exit code and a reason of the contract, and one line for people."""

    exit_code: int
    reason: str
    message: str
    rank: int | None = None
    time_ns: int = 0
    """When it was recorded; orders failures of one kind."""
    result: dict[str, Any] | None = None
    """What a successful stage returned."""


@dataclass(frozen=True)
class Exit:
    """How the system saw a process end."""

    rank: int
    code: int
    """Exit code, or minus the number of the signal."""
    delay_s: float = 0.0
    """Seconds after the first process that failed."""


@dataclass(frozen=True)
class Position:
    """How far the training is: steps done, and the step of the latest complete checkpoint."""

    step: int | None = None
    checkpoint: int | None = None

    def details(self) -> dict[str, int]:
        """What is known of it, for the termination message."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Records:
    """Everything in the folder."""

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    """By rank."""
    exits: tuple[Exit, ...] = ()
    agent: Outcome | None = None
    """An error of torchrun itself."""
    position: Position = Position()


def folder_of(environment: Mapping[str, str]) -> Path | None:
    """The folder, if a launcher reads it."""
    name = environment.get(OUTCOMES_VARIABLE)
    return Path(name) if name else None


def _write(path: Path, value: object) -> None:
    """A file that is whole or absent, whenever this process dies; nothing needs to survive the machine."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    temporary.replace(path)


def write_outcome(folder: Path, outcome: Outcome, rank: int) -> None:
    """Record how a rank ended."""
    record = replace(outcome, rank=rank, time_ns=time.time_ns())
    _write(folder / f"rank-{rank}.json", asdict(record))


def write_agent_outcome(folder: Path, outcome: Outcome) -> None:
    """Record an error of torchrun itself."""
    _write(folder / AGENT_FILE, asdict(outcome))


def write_exits(folder: Path, exits: list[Exit]) -> None:
    """Record how the system saw processes end."""
    _write(folder / EXITS_FILE, [asdict(one) for one in exits])


class PositionFile:
    """Where a rank tells the launcher how far it is; every rank does, so that any of them may be lost.

    It is overwritten in place each step, by a single system call: whole whenever the process dies.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._handle: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> PositionFile:
        """The file of this process; without a launcher, none."""
        folder = folder_of(environment)
        return cls(folder and folder / f"position-{environment.get('RANK', '0')}.json")

    def write(self, step: int, checkpoint: int | None) -> None:
        """Say that so many steps are done and which checkpoint is the latest complete one."""
        if self.path is None:
            return
        text = json.dumps(asdict(Position(step, checkpoint))).ljust(POSITION_BYTES)
        with suppress(OSError):  # no reason to end a training
            if self._handle is None:
                self._handle = os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o644)
            os.pwrite(self._handle, text.encode(), 0)


def has_position(folder: Path) -> bool:
    """Whether a process of this node has come to its first step."""
    return any(folder.glob("position-*.json"))


def _read(path: Path) -> Any:  # noqa: ANN401 - JSON
    return json.loads(path.read_text(encoding="utf-8"))


def read_records(folder: Path) -> Records:
    """Read the folder."""
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


logger = logging.getLogger(__name__)

MAX_BYTES = 4096
VARIABLE = "COSMOS_TERMINATION_LOG"
"""Where to write; Kubernetes reads /dev/termination-log, on one machine the runner names a file."""
NODE_VARIABLE = "NODE_NAME"
"""The node's name; the host's where it is not set."""


def node_name(environment: Mapping[str, str]) -> str:
    """The node that this process runs on."""
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


def build(reason: str, message: str, details: Mapping[str, Any]) -> str:
    """The JSON text, at most 4 KiB: the largest results are dropped first, then the message is cut.

    A result that lost values names them in ``omitted``.
    """
    record = {"reason": reason, "message": _one_line(message), **_strict(dict(details))}
    while len(text := json.dumps(record)) > MAX_BYTES:
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
    """Write ``{reason, message, ...}``; nothing happens where nobody reads it.

    Args:
        reason: CamelCase word of the contract.
        message: for people; becomes one line.
        details: step, checkpoint, rank, result.
    """
    target = os.environ.get(VARIABLE)
    if not target:
        return
    text = build(reason, message, {"node": node_name(os.environ), **details})
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:  # the exit code says the most important part
        logger.warning("%s: the termination message cannot be written: %s", target, error)
