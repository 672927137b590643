"""A training process whose stage ends in a chosen way: ``rank_program.py CONFIG MODE``, started by torchrun.

Everything but the stage is the worker's: command line, outcome, exit.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import types
from pathlib import Path

from cosmos_worker import cli
from cosmos_worker.errors import DataError, StopRequested
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.runtime.stage_process import exit_process

RANK = int(os.environ["RANK"])
PEER = Path(os.environ["COSMOS_OUTCOMES"]) / "peer"
"""Tells the process of rank 1."""
GLOO = "[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:39340"
WATCHDOG = (
    f"[rank{RANK}]:[E207 ProcessGroupNCCL.cpp:1895] [PG ID 0 PG GUID 0(default_pg) Rank {RANK}] Process group "
    "watchdog thread terminated with exception: NCCL error: remote process exited or there was a network error\n"
    "ncclRemoteError: A call failed possibly due to a network error.\nLast error:\nBroken pipe\n"
    "Exception raised from checkForNCCLErrorsInternal at ProcessGroupNCCL.cpp:2363\n"
)
position = PositionFile.from_environment(os.environ)
Result = dict[str, object]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def lose_peer() -> None:
    """Report that the connection closed: as the system does, when rank 1 is dead and not before."""
    if RANK != 1:
        while not PEER.exists() or is_alive(int(PEER.read_text())):
            time.sleep(0.05)
    raise RuntimeError(GLOO)


def by_signal(number: int) -> None:
    """Rank 1 dies of a signal, the others report that it is gone."""
    if RANK != 1:
        lose_peer()
    os.kill(os.getpid(), number)


def killed() -> None:
    by_signal(signal.SIGKILL)


def crashed() -> None:
    if RANK == 1:
        ctypes.string_at(0)
    lose_peer()


def exhausted() -> None:
    """Rank 1 takes more memory than its control group has."""
    if RANK != 1:
        time.sleep(60)
    pieces = []
    while True:
        pieces.append(bytearray(os.urandom(1 << 20) * 16))


def watchdog() -> None:
    """Rank 0's only failure is that NCCL lost a peer on another node."""
    if RANK == 0:
        sys.stderr.write(WATCHDOG)
        sys.stderr.flush()
        os.abort()
    time.sleep(60)


def data_error() -> None:
    if RANK != 1:
        lose_peer()
    raise DataError("clips/7.mp4: 3 frames; needs 17")


def left() -> None:
    if RANK == 1:
        os._exit(3)
    time.sleep(60)


def gpu_fault() -> None:
    if RANK != 1:
        lose_peer()
    raise RuntimeError(
        "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be"
    )


def real_peer_loss() -> None:
    """Rank 1 is killed in the middle of gloo's reductions."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    for step in range(1000):
        dist.all_reduce(torch.ones(1))
        position.write(step + 1, 4)
        if RANK == 1 and step == 20:
            os.kill(os.getpid(), signal.SIGKILL)


def wait_for_stop() -> None:
    requested: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: requested.append(number))
    position.write(3, None)
    sys.stderr.write("ready\n")
    while not requested:
        time.sleep(0.05)


def slow_save() -> None:
    wait_for_stop()
    end = time.monotonic() + float(os.environ["SAVE_TAKES_S"])
    while time.monotonic() < end:
        time.sleep(0.05)
    position.write(3, 3)
    raise StopRequested("stopped after step 3; run the same command to continue")


def stubborn() -> None:
    wait_for_stop()
    while True:
        time.sleep(1)


def never_begins() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    sys.stderr.write("ready\n")
    while True:
        time.sleep(1)


def succeed() -> None:
    position.write(6, 6)


def run(config: object, volumes: object) -> Result:
    globals()[sys.argv[2]]()
    return {"steps": 6} if RANK else {"steps": 6, "loss": 0.5}


if __name__ == "__main__":
    stage = types.ModuleType("cosmos_worker.stages.train")
    stage.run = run  # type: ignore[attr-defined]
    sys.modules[stage.__name__] = stage
    if RANK == 1:
        PEER.with_suffix(".tmp").write_text(str(os.getpid()))
        PEER.with_suffix(".tmp").rename(PEER)
    exit_process(cli.main(["train", "--config", sys.argv[1]]))
