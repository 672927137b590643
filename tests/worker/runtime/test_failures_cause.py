"""The first process that failed, found from the records that the processes of a node leave: tables of cases."""

from __future__ import annotations

import pytest

from cosmos_worker.runtime.failures import find_cause
from cosmos_worker.runtime.outcome import (
    Exit,
    Outcome,
    Position,
    Records,
)


def outcome(rank: int, exit_code: int, reason: str, time_ns: int = 0) -> Outcome:
    return Outcome(exit_code, reason, f"of {rank}", rank, time_ns)


LOST = outcome(0, 80, "PeerLost")


def cause(
    *found: Outcome | Exit,
    agent_code: int = 1,
    log: str = "",
    agent: Outcome | None = None,
    memory_ran_out: bool = False,
    nothing_to_save: bool = False,
) -> Outcome:
    records = Records(
        {one.rank: one for one in found if isinstance(one, Outcome)},
        tuple(one for one in found if isinstance(one, Exit)),
        agent,
        Position(),
    )
    return find_cause(
        records, agent_code, log, memory_ran_out=memory_ran_out, nothing_to_save=nothing_to_save
    )


@pytest.mark.parametrize(
    ("found", "exit_code", "reason"),
    [
        ((LOST, Exit(0, 80), Exit(1, -9)), 137, "Killed"),
        ((LOST, outcome(1, 2, "DataError", 5)), 2, "DataError"),
        ((LOST, outcome(1, 74, "RetryableError", 5)), 74, "RetryableError"),
        ((LOST, outcome(1, 1, "Bug", 5)), 1, "Bug"),
        ((LOST, outcome(1, 1, "Bug"), Exit(2, -11)), 139, "Crashed"),
        ((outcome(1, 1, "Bug"), Exit(2, -6)), 1, "Bug"),
        ((outcome(1, 81, "GpuFault"), Exit(2, -6)), 81, "GpuFault"),
        ((outcome(1, 1, "OutOfMemory"), outcome(0, 1, "Bug")), 1, "OutOfMemory"),
        ((outcome(0, 75, "Stopped"), Exit(1, -6)), 75, "Stopped"),
        ((LOST, Exit(1, -15), Exit(2, -9, delay_s=30)), 80, "PeerLost"),
        ((LOST, Exit(1, -9, delay_s=1)), 137, "Killed"),
        ((Exit(1, 3), Exit(0, -15)), 1, "Crashed"),
        ((Exit(0, -15), Exit(1, -15)), 143, "Killed"),
    ],
)
def test_cause_is_what_the_rest_follows_from(
    found: tuple[Outcome | Exit, ...], exit_code: int, reason: str
) -> None:
    result = cause(*found)

    assert (result.exit_code, result.reason) == (exit_code, reason)


def test_earliest_of_equal_causes_is_taken() -> None:
    assert cause(outcome(0, 1, "Bug", 9), outcome(1, 1, "Bug", 5)).rank == 1


def test_memory_explains_a_kill() -> None:
    assert cause(LOST, Exit(1, -9), memory_ran_out=True).reason == "OutOfMemory"


def test_success_is_told_by_the_lowest_rank_of_the_node() -> None:
    result = cause(outcome(3, 0, "Succeeded"), outcome(2, 0, "Succeeded"), agent_code=0)

    assert (result.exit_code, result.rank) == (0, 2)


def test_crash_after_success_does_not_undo_it_but_crash_of_a_silent_rank_counts() -> None:
    done = outcome(0, 0, "Succeeded")

    assert cause(done, outcome(1, 0, "Succeeded"), Exit(1, -11)).exit_code == 0
    assert cause(done, Exit(1, -11)).exit_code == 139


def test_peer_that_was_stopped_too_is_not_lost() -> None:
    assert cause(LOST, nothing_to_save=True).reason == "Stopped"
    assert cause(outcome(0, 2, "DataError"), nothing_to_save=True).reason == "DataError"


def test_error_of_torchrun_itself_is_told() -> None:
    agent = Outcome(80, "PeerLost", "DistStoreError: Socket Timeout")

    assert cause(agent=agent) == agent


@pytest.mark.parametrize(
    ("agent_code", "nothing_to_save", "exit_code", "reason"),
    [
        (0, False, 0, "Succeeded"),
        (1, False, 1, "Crashed"),
        (-9, False, 137, "Killed"),
        (-9, True, 75, "Stopped"),
        (1, True, 75, "Stopped"),
    ],
)
def test_silence_is_explained_by_torchruns_end(
    agent_code: int, nothing_to_save: bool, exit_code: int, reason: str
) -> None:
    result = cause(agent_code=agent_code, nothing_to_save=nothing_to_save)

    assert (result.exit_code, result.reason) == (exit_code, reason)
