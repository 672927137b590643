"""Processes of a stage, forked from a server that has imported PyTorch once, of which each may have a fault."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from support.forked_processes import free_port, run_rank, server

from faults.operations import Fault, install

TIMEOUT_S = 180.0
PEER_PATIENCE_S = 3.0
"""Seconds that the other processes have after one has died, until they are killed, as torchrun does it."""
LAST_WORDS = re.compile(r"^\S+ (?:ERROR|INFO) rank=\d+ cosmos_worker\.\S+ (\w+: .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Ended:
    """The end of a stage's processes.

    Attributes:
        codes: exit codes by rank; minus the number of a signal.
        log: what they wrote, by rank.
        seconds: until all had ended.
    """

    codes: tuple[int, ...]
    log: str
    seconds: float

    @property
    def code(self) -> int:
        """The first exit code that is not 0; 0 if all are."""
        return next((code for code in self.codes if code), 0)

    @property
    def message(self) -> str:
        """The last line that names an outcome; empty without one."""
        found = LAST_WORDS.findall(self.log)
        return str(found[-1]) if found else ""


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    logs: Path,
    faults: Sequence[Fault | None] = (None,),
) -> list[BaseProcess]:
    """Start ``cosmos-worker`` with these arguments, as many processes as there are entries of faults."""
    world = len(faults)
    shared = {
        **environment,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()) if world > 1 else "0",
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
    }
    logs.mkdir(parents=True, exist_ok=True)
    started = []
    for rank, fault in enumerate(faults):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        log = logs / f"{rank}.log"
        log.unlink(missing_ok=True)
        process = server().Process(
            target=_run_with_fault, args=(list(arguments), own, str(log), fault)
        )
        process.start()
        started.append(process)
    return started


def _run_with_fault(
    arguments: list[str], environment: dict[str, str], log: str, fault: Fault | None
) -> None:
    if fault is not None:
        install(fault)
    run_rank(arguments, environment, log)


def wait(processes: Sequence[BaseProcess], logs: Path, timeout_s: float = TIMEOUT_S) -> Ended:
    """Wait for the end; once one has failed, the others have PEER_PATIENCE_S, then they are killed."""
    begin = time.monotonic()
    end = begin + timeout_s
    while any(process.is_alive() for process in processes):
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + PEER_PATIENCE_S)
        if time.monotonic() > end:
            kill(processes)
        time.sleep(0.01)
    codes = tuple(-1 if process.exitcode is None else process.exitcode for process in processes)
    texts = [path.read_text(errors="replace") for path in sorted(logs.glob("*.log"))]
    return Ended(codes, "".join(texts), time.monotonic() - begin)


def kill(processes: Sequence[BaseProcess], number: int = signal.SIGKILL) -> None:
    """Send a signal to those that live."""
    for process in processes:
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
