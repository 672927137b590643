"""Several processes of one stage without torchrun: forked from a server that has imported PyTorch once.

For tests of what processes compute together. What torchrun and the launcher do is tested with the real ones
(``test_launch.py``); there each process takes seconds of both cores before it begins.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

PRELOADED = [
    "cosmos_worker.cli",
    "cosmos_worker.stages.train",
    "cosmos_worker.stages.generate",
    "torch.distributed.checkpoint.state_dict",
    "torch.distributed.fsdp",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.t5.modeling_t5",
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class EndedProcesses:
    """The end of the processes.

    Attributes:
        codes: exit codes by rank.
        log: what they wrote, by rank.
    """

    codes: tuple[int, ...]
    log: str


def run_forked(arguments: Sequence[str], processes: int, timeout: float = 240.0) -> EndedProcesses:
    """Run ``cosmos-worker`` with these arguments as so many ranks on this machine; they are killed after timeout s."""
    server = _server()
    with tempfile.TemporaryDirectory(prefix="gang-") as folder:
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
        logs = [Path(folder) / f"{rank}.log" for rank in range(processes)]
        ranks = [
            server.Process(
                target=_run_rank,
                args=(list(arguments), {**shared, "RANK": str(i), "LOCAL_RANK": str(i)}, str(log)),
            )
            for i, log in enumerate(logs)
        ]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(timeout)
            if rank.is_alive():
                rank.kill()
                rank.join()
        codes = tuple(-1 if rank.exitcode is None else rank.exitcode for rank in ranks)
        return EndedProcesses(codes, "".join(log.read_text() for log in logs))


def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with mock.patch.dict(os.environ, ONE_THREAD):  # read when the libraries are loaded
        multiprocessing.forkserver.ensure_running()
    return context


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run_rank(arguments: list[str], environment: dict[str, str], log: str) -> None:
    from cosmos_worker import cli

    os.environ.update(ONE_THREAD | environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(cli.main(arguments))
