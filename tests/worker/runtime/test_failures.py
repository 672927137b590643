"""Exit code and reason that follow from an exception, a signal or the last lines of a process."""

from __future__ import annotations

import signal

import pytest
import torch
import torch.distributed as dist

from cosmos_worker.errors import DataError, RetryableError, StopRequested
from cosmos_worker.runtime.failures import (
    classify,
    describe_signal,
    find_watchdog_message,
)

NCCL = "NCCL error in: ProcessGroupNCCL.cpp:3763, "


@pytest.mark.parametrize(
    ("error", "exit_code", "reason"),
    [
        (DataError("clip"), 2, "DataError"),
        (RetryableError("disk"), 74, "RetryableError"),
        (StopRequested("saved"), 75, "Stopped"),
        (ConnectionResetError("hub"), 74, "OSError"),
        (PermissionError(13, "Permission denied", "/mnt/x"), 2, "PermissionError"),
        (KeyError("x"), 1, "Bug"),
        (MemoryError(), 1, "OutOfMemory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 1, "OutOfMemory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "OutOfMemory"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), 81, "GpuFault"),
        (RuntimeError("CUDA error: unspecified launch failure"), 81, "GpuFault"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), 81, "GpuFault"),
        (RuntimeError("Unable to determine the device handle: GPU is lost"), 81, "GpuFault"),
        (RuntimeError("Found no NVIDIA driver on your system."), 81, "GpuFault"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, "Bug"),
        (RuntimeError("CUDA error: device-side assert triggered"), 1, "Bug"),
        (
            RuntimeError("[/src/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:3"),
            80,
            "PeerLost",
        ),
        (dist.DistBackendError(NCCL + "ncclRemoteError: Last error: Broken pipe"), 80, "PeerLost"),
        (dist.DistBackendError(NCCL + "ncclInvalidUsage: Duplicate GPU detected"), 1, "Bug"),
        (
            dist.DistBackendError(NCCL + "Cuda failure 214 'uncorrectable ECC error encountered'"),
            81,
            "GpuFault",
        ),
        (dist.DistBackendError(NCCL + "Cuda failure 2 'out of memory'"), 1, "OutOfMemory"),
        (dist.DistNetworkError("client socket has timed out after 600000ms"), 80, "PeerLost"),
        (dist.DistNetworkError("port: 29500, EADDRINUSE: address already in use"), 74, "RetryableError"),
        (dist.DistStoreError("Socket Timeout"), 80, "PeerLost"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Exception) else "",
)  # fmt: skip
def test_exception_has_its_exit_code_and_reason(
    error: Exception, exit_code: int, reason: str
) -> None:
    outcome = classify(error)

    assert (outcome.exit_code, outcome.reason) == (exit_code, reason)


def test_gpu_that_fails_while_a_checkpoint_is_written_is_no_full_disk() -> None:
    error = RetryableError("run: cannot write a checkpoint")
    error.__cause__ = RuntimeError("CUDA error: uncorrectable ECC error encountered")

    assert classify(error).reason == "GpuFault"


def test_words_of_a_user_error_do_not_make_a_gpu_fault() -> None:
    assert classify(DataError("clips/Xid.mp4: 3 frames")).reason == "DataError"


def test_message_of_a_foreign_error_is_one_short_line() -> None:
    message = classify(RuntimeError("first\n  second\n" + "x" * 5000)).message

    assert message.startswith("RuntimeError: first second x")
    assert len(message) <= 600


@pytest.mark.parametrize(
    ("number", "memory_ran_out", "exit_code", "reason"),
    [
        (signal.SIGKILL, False, 137, "Killed"),
        (signal.SIGKILL, True, 137, "OutOfMemory"),
        (signal.SIGSEGV, True, 139, "Crashed"),
        (signal.SIGBUS, False, 135, "Crashed"),
        (signal.SIGRTMIN + 3, False, 128 + signal.SIGRTMIN + 3, "Killed"),
    ],
)
def test_signal_is_passed_on(
    number: int, memory_ran_out: bool, exit_code: int, reason: str
) -> None:
    outcome = describe_signal("rank 1", number, memory_ran_out=memory_ran_out)

    assert (outcome.exit_code, outcome.reason) == (exit_code, reason)
    assert outcome.message.startswith("rank 1 was ")


def watchdog(rank: int, text: str) -> str:
    return (
        f"[rank{rank}]:[E ProcessGroupNCCL.cpp:1895] [PG ID 0 PG GUID 0(default_pg) Rank {rank}] Process group "
        f"watchdog thread terminated with exception: {text}\nException raised from somewhere\nframe #0: x\n"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)", "PeerLost"),
        ("NCCL error: remote process exited\nncclRemoteError: A call failed.", "PeerLost"),
        ("CUDA error: uncorrectable ECC error encountered", "GpuFault"),
        ("CUDA error: an illegal memory access was encountered", None),
    ],
)
def test_last_words_of_the_watchdog_are_understood(text: str, reason: str | None) -> None:
    log = watchdog(2, "CUDA error: uncorrectable NVLink error") + "other\n" + watchdog(3, text)

    outcome = find_watchdog_message(log, 3)

    assert (outcome and outcome.reason) == reason


def test_last_words_of_another_rank_are_not_taken() -> None:
    assert find_watchdog_message(watchdog(2, "CUDA error: uncorrectable ECC error"), 3) is None
