"""Records that the processes of a node leave for their launcher."""

from __future__ import annotations

from pathlib import Path

from cosmos_worker.runtime.outcome import (
    Exit,
    Outcome,
    Position,
    PositionFile,
    Records,
    has_position,
    read_records,
    write_exits,
    write_outcome,
)


def test_records_come_back(tmp_path: Path) -> None:
    write_outcome(tmp_path, Outcome(2, "DataError", "clip"), rank=3)
    write_exits(tmp_path, [Exit(3, 2), Exit(4, -15, 0.5)])

    records = read_records(tmp_path)

    assert records.outcomes[3].reason == "DataError"
    assert records.outcomes[3].rank == 3
    assert records.outcomes[3].time_ns > 0
    assert records.exits == (Exit(3, 2), Exit(4, -15, 0.5))
    assert records.agent is None


def test_furthest_position_of_any_rank_is_known(tmp_path: Path) -> None:
    assert not has_position(tmp_path)
    for rank, steps in ((0, (100_000, 9)), (1, (10, 8))):
        file = PositionFile.from_environment({"COSMOS_OUTCOMES": str(tmp_path), "RANK": str(rank)})
        for step in steps:  # a shorter text replaces a longer one
            file.write(step, None if rank else 4)
    (tmp_path / "position-2.json").touch()  # killed before it wrote

    assert has_position(tmp_path)
    assert read_records(tmp_path).position == Position(9, 4)
    assert read_records(tmp_path).position.details() == {"step": 9, "checkpoint": 4}


def test_folder_of_processes_that_never_began_is_empty(tmp_path: Path) -> None:
    assert read_records(tmp_path) == Records()
    assert Position().details() == {}


def test_without_a_launcher_nothing_is_written(tmp_path: Path) -> None:
    PositionFile.from_environment({}).write(3, None)
    lost = PositionFile(tmp_path / "absent" / "position-0.json")

    lost.write(3, None)  # a launcher that is gone is no reason to end a training
