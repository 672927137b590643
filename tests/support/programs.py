"""A program of a test as several processes of one group, as torchrun would start them on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EndedProcess:
    """The end of a process: its exit code (negative: killed by that signal), and its output."""

    code: int
    output: str
    errors: str


def run_program(
    source: str, processes: int, *arguments: str, timeout: float = 240.0
) -> list[EndedProcess]:
    """Run Python source as so many ranks, until all have ended; they are killed after timeout s. Results by rank."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    return [_wait(process, timeout) for process in started]


def _wait(process: subprocess.Popen[str], timeout: float) -> EndedProcess:
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    return EndedProcess(process.returncode, output, errors)


def follow_advice(command: str, folder: Path) -> None:
    """Run the shell command that a message advises, in a folder, with the ``python`` of the tests."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=True)
