"""SIGKILL at chosen file operations and at random times, in every stage of the tiny job, on one and two processes."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from faults import job, processes
from faults.inspection import compare_end, find_partial
from faults.job import Reference, begin_stage, run_stage
from faults.operations import Fault
from faults.processes import Ended

LABELS = {
    "fetch-model": "download", "prepare-dataset": "download and index", "embed-text": "cache write (embeddings)",
    "cache-latents": "cache write (latents)", "publish": "publish",
}  # fmt: skip
PRUNE = re.compile(r"\.removed\.tmp|checkpoints/iter_|state/iter_")


@dataclass(frozen=True)
class Point:
    """One place to kill at: a stage, its number of processes, the one that is killed, and its operation or a time.

    Attributes:
        operation: number, from 1, of the file operation before which it is killed; 0 = at a time.
        label: kind of the place, for the table.
        share: of the uninterrupted stage's time, after which all are killed, if operation is 0.
    """

    stage: str
    world: int
    rank: int
    operation: int
    label: str
    share: float = 0.0


@dataclass
class Result:
    """The outcome of one run with a kill."""

    point: Point
    was_killed: bool
    problems: list[str] = field(default_factory=list)
    codes: tuple[int, ...] = ()


def label_of(stage: str, operation: str) -> str:
    """The kind of a place, of the table: of the training it depends on what is done there."""
    if stage != "train":
        return LABELS[stage]
    kind, _, path = operation.partition(" ")
    if kind == "rename":
        return "prune" if ".removed.tmp" in path else "rename"
    if (kind == "remove" and PRUNE.search(path)) or "…" in path:
        return "prune"
    return (
        "save"
        if "/state/" in path or "/checkpoints/iter" in path or "/checkpoints/.iter" in path
        else "other writes"
    )


def all_points(reference: Reference) -> list[Point]:
    """A kill before each file operation of each process of each stage."""
    return [
        Point(stage, world, rank, number, label_of(stage, operation))
        for (stage, world), by_rank in reference.operations.items()
        for rank, operations in enumerate(by_rank)
        for number, operation in enumerate(operations, start=1)
    ]


def choose_points(reference: Reference, runs: int, draw: random.Random) -> list[Point]:
    """Points for so many runs: a third at random times, the others drawn evenly from every stage and kind of place."""
    groups: dict[tuple[str, int, str], list[Point]] = {}
    for point in all_points(reference):
        groups.setdefault((point.stage, point.world, point.label), []).append(point)
    for group in groups.values():
        draw.shuffle(group)
    timed = runs // 3
    chosen: list[Point] = []
    while len(chosen) < runs - timed and any(groups.values()):
        chosen += [group.pop() for group in groups.values() if group]
    del chosen[runs - timed :]
    stages = [
        ("train", 1),
        ("train", 2),
        ("cache-latents", 1),
        ("prepare-dataset", 1),
        ("publish", 1),
    ]
    for number in range(runs - len(chosen)):
        stage, world = stages[number % len(stages)]
        chosen.append(Point(stage, world, 0, 0, "random time", draw.random()))
    draw.shuffle(chosen)
    return chosen


def kill_run(reference: Reference, point: Point) -> Result:
    """Carry a stage out with one kill, look at what is left, and carry it out to its end."""
    reference.reset(point.stage)
    root = reference.root
    expected = root / "copies" / f"{point.stage}-{point.world}"
    if point.operation:
        faults: list[Fault | None] = [None] * point.world
        faults[point.rank] = Fault(str(reference.work), "kill", point.operation)
        ended = run_stage(root, point.stage, faults)
    else:
        ended = _kill_at_time(reference, point)
    result = Result(point, -9 in ended.codes, codes=ended.codes)
    result.problems += [f"partial {name}" for name in find_partial(reference.work, expected)]
    again = run_stage(root, point.stage, [None] * point.world)
    if again.code:
        result.problems.append(
            f"the next attempt ended with {again.code}: {again.message or again.log[-600:]}"
        )
    else:
        result.problems += compare_end(reference.work, expected)
    return result


def _kill_at_time(reference: Reference, point: Point) -> Ended:
    """Kill all processes after a share of the stage's time."""
    started = begin_stage(reference.root, point.stage, [None] * point.world)
    end = time.monotonic() + point.share * reference.seconds[point.stage, point.world]
    while time.monotonic() < end and any(one.is_alive() for one in started):
        time.sleep(0.005)
    processes.kill(started)
    return processes.wait(started, reference.root / "logs")


def sweep(reference: Reference, points: Sequence[Point]) -> Iterator[Result]:
    """Results of the runs, one after another."""
    for point in points:
        yield kill_run(reference, point)


def table(results: Sequence[Result]) -> list[str]:
    """Lines of a Markdown table: kind of place, runs, kills that happened, what was wrong."""
    lines = [
        "| killed at | processes | runs | killed | partial file under a finished name | left over | end differs |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    groups: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.point.label, result.point.world), []).append(result)
    for (label, world), own in sorted(groups.items()):
        partial = sum(any(text.startswith("partial") for text in one.problems) for one in own)
        left = sum(any(text.startswith("left over") for text in one.problems) for one in own)
        other = sum(
            any(not text.startswith(("partial", "left over")) for text in one.problems)
            for one in own
        )
        killed = sum(one.was_killed for one in own)
        lines.append(
            f"| {label} | {world} | {len(own)} | {killed} | {partial} | {left} | {other} |"
        )
    return lines


STAGES = job.STAGES
