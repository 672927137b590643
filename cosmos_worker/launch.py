"""Start the training processes of this node through torchrun, and say why they ended. No torch here.

Exit codes do not cross torchrun, so each process that ends on purpose writes its reason to a file; this parent reads
them. A stop request goes to the training processes themselves: they save together and leave with success, and only
this parent turns that into the exit code "continue me".
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from cosmos_worker import termination
from cosmos_worker.errors import EXIT_BUG, EXIT_CONTINUE, EXIT_OK

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
OUTCOMES_VARIABLE = "COSMOS_OUTCOMES"
"""Folder in which the processes write how they ended."""


def write_outcome(
    environment: Mapping[str, str], exit_code: int, reason: str, message: str
) -> bool:
    """Record how this process ended, if a launcher reads it; returns whether it does."""
    folder = environment.get(OUTCOMES_VARIABLE)
    if not folder:
        return False
    record = {"exit_code": exit_code, "reason": reason, "message": message}
    path = Path(folder) / f"rank-{environment.get('RANK', '0')}.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return True


def read_outcome(folder: Path) -> dict[str, object] | None:
    """The outcome of the first process that recorded one (others often follow from it)."""
    files = sorted(folder.glob("rank-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return None
    outcome: dict[str, object] = json.loads(files[0].read_text(encoding="utf-8"))
    return outcome


def child_processes(pid: int) -> Iterator[int]:
    """Direct children of a process (Linux)."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            yield from (int(child) for child in task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # the thread ended while we looked
            continue


def _die_with_parent() -> None:
    """In the child: receive SIGTERM, which saves, when the parent is gone (Linux, prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def torchrun_arguments(processes: int, environment: Mapping[str, str]) -> list[str]:
    """Options of torchrun: several nodes as PyTorchJob describes them in the environment, or one."""
    nodes = int(environment.get("PET_NNODES", environment.get("NNODES", "1")))
    if nodes == 1:
        where = ["--standalone"]
    else:
        where = [
            f"--nnodes={nodes}",
            f"--node-rank={environment.get('PET_NODE_RANK', environment.get('RANK', '0'))}",
            f"--master-addr={environment['MASTER_ADDR']}",
            f"--master-port={environment.get('MASTER_PORT', '29400')}",
        ]
    return [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={processes}"]


def launch(config: Path, overrides: Sequence[str], processes: int) -> int:
    """Train with this many processes on this node; returns the exit code of the worker.

    Args:
        config: stage document.
        overrides: key.sub=value.
        processes: processes on this node.
    """
    with tempfile.TemporaryDirectory(prefix="cosmos-") as folder:
        environment = {**os.environ, OUTCOMES_VARIABLE: folder}
        environment.setdefault("OMP_NUM_THREADS", "1")
        command = [
            *torchrun_arguments(processes, os.environ),
            *("--module", "cosmos_worker.cli", "train", "--config", str(config)),
            *(argument for override in overrides for argument in ("--set", override)),
        ]
        for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            environment.pop(variable, None)
        # a session of its own: Ctrl-C on the terminal reaches this process only, which then asks for a save
        child = subprocess.Popen(
            command, env=environment, start_new_session=True, preexec_fn=_die_with_parent
        )

        def forward(number: int, frame: FrameType | None) -> None:
            logger.info("stop requested; saving a checkpoint")
            for rank in list(child_processes(child.pid)):
                os.kill(rank, signal.SIGTERM)

        previous = {
            number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            exit_code = child.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        outcome = read_outcome(Path(folder))
    if outcome is None:
        if exit_code:
            termination.write("Crashed", f"torchrun ended with exit code {exit_code}")
        return EXIT_OK if exit_code == 0 else EXIT_BUG
    termination.write(str(outcome["reason"]), str(outcome["message"]))
    logger.log(
        logging.INFO if outcome["exit_code"] == EXIT_CONTINUE else logging.ERROR,
        "%s: %s",
        outcome["reason"],
        outcome["message"],
    )
    return int(str(outcome["exit_code"]))
