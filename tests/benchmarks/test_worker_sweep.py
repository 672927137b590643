"""A short part of the worker's crash sweep; ``make worker-sweep`` has the long one."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from faults import damage, evictions, job, kills, storage
from faults.inspection import compare_end, find_partial
from faults.job import Reference
from faults.kills import Point
from faults.operations import SYNC, WRITE, Fault, _Counter
from faults.storage import Kind

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return job.make_reference(tmp_path_factory.mktemp("sweep"), worlds=(1, 2))


def operation_number(reference: Reference, world: int, part: str, last: bool = True) -> int:
    """The number of a file operation of the training's first process whose path has a text."""
    lines = reference.operations["train", world][0]
    found = [number for number, line in enumerate(lines, start=1) if part in line]
    return found[-1 if last else 0]


@pytest.mark.parametrize(
    ("world", "part"),
    [(1, "complete.json"), (2, ".removed.tmp")],
    ids=["save", "prune"],
)
def test_training_that_is_killed_ends_in_the_same_bits(
    reference: Reference, world: int, part: str
) -> None:
    number = operation_number(reference, world, part)

    result = kills.kill_run(reference, Point("train", world, 0, number, part))

    assert result.was_killed
    assert not result.problems


@pytest.mark.parametrize("stage", ["cache-latents", "publish"])
def test_stage_that_is_killed_before_it_writes_its_marker_is_carried_out_again(
    reference: Reference, stage: str
) -> None:
    number = len(reference.operations[stage, 1][0]) - 3

    result = kills.kill_run(reference, Point(stage, 1, 0, number, stage))

    assert result.was_killed
    assert not result.problems


def test_evicted_training_loses_no_step(reference: Reference) -> None:
    found = evictions.evict(reference, 2, number=2, draw=random.Random(2), steps=40)

    assert not found.problems
    assert len(found.seconds) == 2
    assert sum(found.lost) == 0


def test_damaged_list_of_a_checkpoint_is_noticed_and_changes_nothing(reference: Reference) -> None:
    chosen = [one for one in damage.TARGETS if one.name == "checkpoint: complete.json"]

    found = list(damage.sweep(reference, chosen))

    assert [one.fault for one in found] == list(damage.FAULTS)
    assert not [one for one in found if "SILENTLY" in one.verdict or "NOT NOTICED" in one.verdict]


def test_full_disk_leaves_nothing_partial(reference: Reference) -> None:
    kind = Kind("full", errno.ENOSPC, storage.WRITING, 0.6, None)

    (found,) = storage.sweep(reference, ["train"], [kind])

    assert found.code == 74
    assert "No space left" in found.message
    assert not found.partial
    assert not found.problems


def test_inspection_sees_a_partial_file_and_a_leftover(reference: Reference) -> None:
    expected = reference.root / "copies" / "train-1"
    job.copy_tree(expected, reference.work)
    assert not find_partial(reference.work, expected)
    assert not compare_end(reference.work, expected)
    export = sorted(reference.work.glob(f"{job.RUN_FOLDER}/checkpoints/iter_*_ema_model.pt"))[-1]

    damage.turn_bit(export)
    (export.parent / ".iter_000000009_reg_model.pt.abcdefgh.tmp").touch()

    name = str(export.relative_to(reference.work))
    assert find_partial(reference.work, expected) == [name]
    assert [one.split()[0] for one in compare_end(reference.work, expected)] == ["left", "differs"]


def test_points_are_drawn_from_every_stage_and_kind(reference: Reference) -> None:
    points = kills.choose_points(reference, 60, random.Random(1))

    assert len(points) == 60
    assert {point.stage for point in points} == set(job.STAGES)
    labels = {point.label for point in points if point.stage == "train"}
    assert {"save", "rename", "prune", "random time"} <= labels
    assert {point.rank for point in points} == {0, 1}


def test_fault_concerns_its_operations_only(tmp_path: Path) -> None:
    root = str(tmp_path)
    fault = Fault(root, "fail", first=2, count=1, kinds=(WRITE,), part="shard", error=errno.ENOSPC)
    counter = _Counter(fault)

    counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
    counter.event("open", (f"{root}/other", "w", os.O_WRONLY))
    counter.event("open", ("/elsewhere/shard", "w", os.O_WRONLY))
    counter.operation(SYNC, f"{root}/shard")
    with pytest.raises(OSError, match="No space left"):
        counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
    counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
