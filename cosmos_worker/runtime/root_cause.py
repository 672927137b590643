"""Which process failed first, and of what? From the records of all processes of a node. Pure, no torch here.

A process that is killed leaves no outcome, while its peers report that the connection closed; torchrun then ends the
others with SIGTERM, and those that do not listen with SIGKILL. So causes are ordered by what can follow from what:
the loss of a peer follows from everything, a wrong input from nothing.
"""

from __future__ import annotations

import signal

from cosmos_worker.errors import (
    EXIT_BUG,
    EXIT_CONTINUE,
    EXIT_GPU_FAULT,
    EXIT_OK,
    EXIT_PEER_LOST,
    EXIT_RETRY,
    EXIT_SIGNAL,
    EXIT_USER_ERROR,
)
from cosmos_worker.runtime.failures import (
    describe_signal,
    last_words,
)
from cosmos_worker.runtime.outcome import (
    Exit,
    Outcome,
    Records,
)

TORCHRUN_PATIENCE_S = 25.0
"""A SIGKILL so long after the first failure came from torchrun, which waits 30 s after its SIGTERM."""
ABORTED = EXIT_SIGNAL + signal.SIGABRT


def precedence(outcome: Outcome) -> int:
    """Lower = nearer to the cause."""
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
    """The outcome of a process that recorded none; None if torchrun ended it because of another."""
    who = f"rank {one.rank}"
    if one.code >= 0:
        message = f"{who} ended with exit code {one.code} without saying why; see its log"
        return Outcome(EXIT_BUG, "Crashed", message, one.rank)
    number = -one.code
    if number == signal.SIGTERM or (number == signal.SIGKILL and one.delay_s > TORCHRUN_PATIENCE_S):
        return None
    if number == signal.SIGABRT:
        words = last_words(log, one.rank)
        if words is not None:
            return words
    outcome = describe_signal(who, number, memory_ran_out=memory_ran_out)
    return Outcome(outcome.exit_code, outcome.reason, outcome.message, one.rank)


def find_cause(
    records: Records, agent_code: int, log: str, *, memory_ran_out: bool, nothing_to_save: bool
) -> Outcome:
    """The outcome of the node.

    Args:
        records: what the processes left.
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
    """Whether those that failed did so when they unloaded, after they had reported success."""
    return bool(records.outcomes) and all(one.rank in records.outcomes for one in records.exits)


def _explain_torchrun(records: Records, agent_code: int, memory_ran_out: bool) -> Outcome:
    """The outcome if no process says anything."""
    if records.agent is not None:
        return records.agent
    if agent_code < 0:
        return describe_signal("torchrun", -agent_code, memory_ran_out=memory_ran_out)
    if records.exits:
        rank = min(one.rank for one in records.exits)
        message = f"rank {rank} was ended by SIGTERM, which nobody sent to the pod"
        return Outcome(EXIT_SIGNAL + signal.SIGTERM, "Killed", message, rank)
    return Outcome(EXIT_BUG, "Crashed", f"torchrun ended with exit code {agent_code}; see its log")
