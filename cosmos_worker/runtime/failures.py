"""Classifies the end of a failed process as exit code and reason, and finds which of several processes failed first.

PyTorch's exceptions are recognised by the names of their classes and by their texts, so that the launcher, which
never loads PyTorch, and tests without a GPU can classify them.

GpuFault is a failure that another node may cure: memory and link errors that cannot be corrected, a GPU that is
lost, busy, absent or not initialised, an error without a reason. ``unspecified launch failure`` counts as one: the
worker has no kernels of its own, so the same kernels have run before. ``an illegal memory access`` and device-side
asserts do not: they follow from inputs and shapes, and would come back on any node.

A process that is killed leaves no outcome, while its peers report that the connection closed; torchrun then ends the
others with SIGTERM, and those that do not end with SIGKILL. So causes are ranked (:func:`precedence`): the loss of a
peer may follow from any other failure, a wrong input from none.

No torch here.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal

from cosmos_worker.config.addresses import redacted
from cosmos_worker.config.log_lines import MAX_MESSAGE, escaped, escaped_lines
from cosmos_worker.errors import (
    EXIT_BUG,
    EXIT_CONTINUE,
    EXIT_GPU_FAULT,
    EXIT_OK,
    EXIT_PEER_LOST,
    EXIT_RETRY,
    EXIT_SIGNAL,
    EXIT_USER_ERROR,
    StopRequested,
    WorkerError,
)
from cosmos_worker.runtime.load_errors import describe_load_error
from cosmos_worker.runtime.outcome import (
    Exit,
    Outcome,
    Records,
)

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Numbers of file errors that a retry does not cure."""
MAX_TEXT = 600
"""Characters of a foreign error's text that a message keeps."""

GPU_FAULT = re.compile(
    r"uncorrectable (ECC|NVLink) error|over nvlink or a hardware error|fallen off the bus|GPU is lost"
    r"|busy or unavailable|no CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver"
    r"|system not yet initialized"
    r"|unspecified launch failure|CUDA error: unknown error|Cuda failure (\d+ )?'unknown error'|\bXid\b",
    re.IGNORECASE,
)
OUT_OF_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|Cuda failure (\d+ )?'out of memory'|can't allocate memory",
    re.IGNORECASE,
)
PEER_LOST = re.compile(
    r"gloo/(transport|rendezvous)|Gloo connectFullMesh|nccl(Remote|System|Internal)Error"
    r"|Watchdog caught collective operation timeout|watchdog got stuck",
    re.IGNORECASE,
)
WRONG_USE = re.compile(r"ncclInvalid(Usage|Argument)")
ADDRESS_TAKEN = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
COMMUNICATION_ERRORS = {"DistError", "RendezvousError"}
"""Base classes of the exceptions that torch.distributed and torchrun raise."""

WATCHDOG = re.compile(
    r"Rank (?P<rank>\d+)\].{0,80}?watchdog thread terminated with exception: (?P<text>.*?)"
    r"(?=Exception raised from|\Z)",
    re.DOTALL,
)
"""The message of NCCL's watchdog before it aborts the process."""

CRASH_SIGNALS = {"SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}
"""Signals that follow from what the process itself did."""
HINTS = {
    "SIGBUS": "; is /dev/shm too small?",
    "SIGKILL": "; by the system, if memory or disk ran out, or by somebody",
}
TORCHRUN_PATIENCE_S = 25.0
"""A process killed this long after the first failure was killed by torchrun, which waits 30 s after its SIGTERM."""
ABORTED = EXIT_SIGNAL + signal.SIGABRT


def one_line(text: str) -> str:
    """A text without line breaks and control characters."""
    return escaped(" ".join(text.split()))


def _said(error: BaseException) -> str:
    """The message of an error of ours, which may have several lines: without control characters, and cut."""
    return escaped_lines(redacted(str(error)))[:MAX_MESSAGE]


def classify_text(text: str) -> tuple[int, str] | None:
    """Exit code and reason of an error of a library by its text; None if the text is not known."""
    if GPU_FAULT.search(text):
        return EXIT_GPU_FAULT, "GpuFault"
    if OUT_OF_MEMORY.search(text):
        return EXIT_BUG, "OutOfMemory"
    if PEER_LOST.search(text) and not WRONG_USE.search(text):
        return EXIT_PEER_LOST, "PeerLost"
    return None


def _classify_foreign(error: BaseException) -> tuple[int, str]:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "OutOfMemoryError" in names or isinstance(error, MemoryError):
        return EXIT_BUG, "OutOfMemory"
    if isinstance(error, RuntimeError):
        told = classify_text(text)
        if told is not None:
            return told
    if names & COMMUNICATION_ERRORS and not WRONG_USE.search(text):
        if ADDRESS_TAKEN.search(text):
            return EXIT_RETRY, "RetryableError"
        return EXIT_PEER_LOST, "PeerLost"
    if isinstance(error, OSError):
        if error.errno in NOT_ALLOWED:
            return EXIT_USER_ERROR, "PermissionError"
        return EXIT_RETRY, "OSError"
    if isinstance(error, pickle.UnpicklingError):  # a library has refused to run what a file says
        return EXIT_USER_ERROR, "CheckpointError"
    return EXIT_BUG, "Bug"


def classify(error: BaseException) -> Outcome:
    """The outcome of a process that ends with an exception."""
    if isinstance(error, WorkerError):
        cause = error.__cause__
        if cause is not None:  # a write "failed" because the GPU that was read did
            exit_code, reason = _classify_foreign(cause)
            if reason in ("GpuFault", "OutOfMemory"):
                return Outcome(exit_code, reason, _said(error))
        reason = "Stopped" if isinstance(error, StopRequested) else type(error).__name__
        return Outcome(error.exit_code, reason, _said(error))
    exit_code, reason = _classify_foreign(error)
    text = one_line(redacted(str(error)))
    if isinstance(error, pickle.UnpicklingError):
        text = describe_load_error(error)
    if reason == "PermissionError":
        text = f"{text}; it must be writable by uid {os.getuid()}, gid {os.getgid()}"
    elif reason != "OSError":
        text = f"{type(error).__name__}: {text}"
    return Outcome(exit_code, reason, text[:MAX_TEXT])


def describe_signal(who: str, number: int, *, memory_ran_out: bool) -> Outcome:
    """The outcome of a process that a signal ended.

    Args:
        who: the process, as subject of the message.
        number: of the signal.
        memory_ran_out: whether the system killed processes of this container for memory.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    exit_code = EXIT_SIGNAL + number
    if number == signal.SIGKILL and memory_ran_out:
        return Outcome(
            exit_code,
            "OutOfMemory",
            f"{who} was killed because the memory of the container ran out; raise its memory limit, "
            "or lower trainer.micro_batch_size",
        )
    reason = "Crashed" if name in CRASH_SIGNALS else "Killed"
    return Outcome(exit_code, reason, f"{who} was ended by {name}{HINTS.get(name, '')}")


def find_watchdog_message(log: str, rank: int) -> Outcome | None:
    """The outcome of a rank that NCCL's watchdog aborted, by its message; None if there is no such message.

    Args:
        log: the end of what the processes wrote to standard error.
        rank: the rank.
    """
    for match in WATCHDOG.finditer(log):
        told = classify_text(match["text"])
        if int(match["rank"]) == rank and told is not None:
            return Outcome(*told, f"NCCL watchdog: {one_line(match['text'])[:MAX_TEXT]}", rank)
    return None


def precedence(outcome: Outcome) -> int:
    """Rank of an outcome among those of several processes: the lowest is the cause of the others."""
    if outcome.reason == "OutOfMemory":
        return 3
    if outcome.exit_code == ABORTED:  # often an answer to what happened elsewhere
        return 7
    if outcome.exit_code > EXIT_SIGNAL:
        return 4
    order = {
        EXIT_CONTINUE: 0,  # all processes have saved: what came after lost nothing
        EXIT_USER_ERROR: 1,
        EXIT_GPU_FAULT: 2,
        EXIT_RETRY: 5,
        EXIT_BUG: 6,
        EXIT_PEER_LOST: 8,
    }
    return order.get(outcome.exit_code, 6)


def explain_exit(one: Exit, log: str, *, memory_ran_out: bool) -> Outcome | None:
    """The outcome of a process that recorded none; None if torchrun ended it because another one had failed."""
    who = f"rank {one.rank}"
    if one.code >= 0:
        message = f"{who} ended with exit code {one.code} without saying why; see its log"
        return Outcome(EXIT_BUG, "Crashed", message, one.rank)
    number = -one.code
    if number == signal.SIGTERM or (number == signal.SIGKILL and one.delay_s > TORCHRUN_PATIENCE_S):
        return None
    if number == signal.SIGABRT:
        told = find_watchdog_message(log, one.rank)
        if told is not None:
            return told
    outcome = describe_signal(who, number, memory_ran_out=memory_ran_out)
    return Outcome(outcome.exit_code, outcome.reason, outcome.message, one.rank)


def find_cause(
    records: Records, agent_code: int, log: str, *, memory_ran_out: bool, nothing_to_save: bool
) -> Outcome:
    """The outcome of all processes of a node: that of the process whose failure caused the others.

    Args:
        records: left by the processes.
        agent_code: exit code of torchrun, or minus the number of the signal that ended it.
        log: the end of what all processes wrote to standard error.
        memory_ran_out: whether the system killed processes of this container for memory.
        nothing_to_save: whether a stop was asked for before any process of the node had begun to train.
    """
    found = [outcome for outcome in records.outcomes.values() if outcome.exit_code != EXIT_OK]
    for one in records.exits:
        if one.rank not in records.outcomes:
            outcome = explain_exit(one, log, memory_ran_out=memory_ran_out)
            if outcome is not None:
                found.append(outcome)
    if found:
        cause = min(found, key=lambda one: (precedence(one), one.time_ns, one.rank or 0))
        if not (nothing_to_save and cause.exit_code == EXIT_PEER_LOST):  # it was stopped first
            return cause
    elif agent_code == EXIT_OK or _all_succeeded(records):
        default = Outcome(EXIT_OK, "Succeeded", "all processes of this node succeeded")
        return min(records.outcomes.values(), key=lambda one: one.rank or 0, default=default)
    if nothing_to_save:
        return Outcome(EXIT_CONTINUE, "Stopped", "stopped before there was anything to save")
    return _explain_torchrun(records, agent_code, memory_ran_out)


def _all_succeeded(records: Records) -> bool:
    """True if every process that failed had reported success before, so that it failed while it unloaded."""
    return bool(records.outcomes) and all(one.rank in records.outcomes for one in records.exits)


def _explain_torchrun(records: Records, agent_code: int, memory_ran_out: bool) -> Outcome:
    """The outcome if no process recorded one."""
    if records.agent is not None:
        return records.agent
    if agent_code < 0:
        return describe_signal("torchrun", -agent_code, memory_ran_out=memory_ran_out)
    if records.exits:
        rank = min(one.rank for one in records.exits)
        message = f"rank {rank} was ended by SIGTERM, which nobody sent to the pod"
        return Outcome(EXIT_SIGNAL + signal.SIGTERM, "Killed", message, rank)
    return Outcome(EXIT_BUG, "Crashed", f"torchrun ended with exit code {agent_code}; see its log")
