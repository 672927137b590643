"""Evictions in a row: SIGTERM with a grace period at random times, until the training has finished."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from cosmos_worker.runtime.outcome import OUTCOMES_VARIABLE
from cosmos_worker.train.checkpoint import list_states
from faults import job, processes
from faults.inspection import compare_end
from faults.job import Reference, begin_stage

GRACE_S = 30.0
STEPS, SAVE_EVERY = 400, 50


@dataclass
class Evictions:
    """The outcome of a series of evictions.

    Attributes:
        lost: steps done again after each eviction.
        before_start: evictions that came before the first step, when there was nothing to lose.
        seconds: from SIGTERM to the end of all processes, of each eviction.
        problems: differences of the finished training from the uninterrupted one.
    """

    world: int
    lost: list[int] = field(default_factory=list)
    before_start: int = 0
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def positions(root: Path) -> list[int]:
    """Steps done by each process, as they tell their launcher."""
    paths = (root / "outcomes").glob("position-*.json")
    return [json.loads(path.read_text())["step"] for path in paths if path.stat().st_size]


def evict(
    reference: Reference, world: int, number: int, draw: random.Random, steps: int = STEPS
) -> Evictions:
    """Evict one training so many times, each time a few steps after it has begun, and let it finish."""
    root = reference.root
    found = Evictions(world)
    experiment = job.experiment(steps, min(SAVE_EVERY, max(1, steps // 4)))
    job.write_document(root, "train", job.documents(root / "inputs", experiment)["train"])
    try:
        reference.reset("train")
        whole = job.run_stage(root, "train", [None] * world)
        if whole.code:
            raise RuntimeError(f"the uninterrupted training ended with {whole.code}: {whole.log}")
        job.copy_tree(reference.work, root / "copies" / "train-long")
        reference.reset("train")
        reached = 0
        for turn in range(number):
            reached = _evict_once(
                reference, found, reached + draw.randint(0, max(1, steps // number - 1)), draw
            )
            if reached >= steps:
                found.problems.append(f"the training had finished before eviction {turn + 1}")
                break
        last = job.run_stage(root, "train", [None] * world)
        if last.code:
            found.problems.append(f"the last attempt ended with {last.code}: {last.message}")
        else:
            found.problems += compare_end(reference.work, root / "copies" / "train-long")
    finally:
        job.write_document(root, "train", job.documents(root / "inputs")["train"])
    return found


def _evict_once(reference: Reference, found: Evictions, at_step: int, draw: random.Random) -> int:
    """Send SIGTERM once a step is done, or at a random time before; returns the steps that are saved."""
    root = reference.root
    outcomes = root / "outcomes"
    outcomes.mkdir(exist_ok=True)
    for path in outcomes.glob("*"):
        path.unlink()
    started = begin_stage(root, "train", [None] * found.world, {OUTCOMES_VARIABLE: str(outcomes)})
    is_early = draw.random() < 0.1
    end = time.monotonic() + (draw.random() * 0.5 if is_early else processes.TIMEOUT_S)
    while time.monotonic() < end and all(one.is_alive() for one in started):
        if max(positions(root), default=-1) >= at_step and not is_early:
            break
        time.sleep(0.002)
    told = time.monotonic()
    processes.kill(started, signal.SIGTERM)
    ended = processes.wait(started, root / "logs", GRACE_S)
    found.seconds.append(time.monotonic() - told)
    done = max(positions(root), default=0)
    states = list_states(reference.work / job.RUN_FOLDER)
    saved = states[-1][0] if states else 0
    if not positions(root):
        found.before_start += 1
    else:
        found.lost.append(max(0, done - saved))
    if set(ended.codes) - {0, 75, -signal.SIGTERM}:
        found.problems.append(f"an evicted training ended with {ended.codes}: {ended.message}")
    return saved


def table(all_found: list[Evictions]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        "| processes | evictions | before the first step | steps lost | most by one | longest, s | end differs |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {one.world} | {len(one.seconds)} | {one.before_start} | {sum(one.lost)} | {max(one.lost, default=0)} "
        f"| {max(one.seconds, default=0):.1f} | {len(one.problems)} |"
        for one in all_found
    ]
    return lines
