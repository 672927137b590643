"""Measure a whole training, not a step alone: ``python benchmarks/whole_loop.py [--steps 24] [--interval 500]``.

Trains the quickstart's network on random latents in this process, with a checkpoint, exports and held-out losses (64
passes) every eighth step, and counts how long the training waits for each part. The shares are those of a training that
does so every ``--interval`` steps. Background threads write meanwhile, and slow steps down: their share is what steps
take longer while a checkpoint is written, where that can be told apart from noise.
"""

from __future__ import annotations

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side import ROOT, Comparison, add_options, finish

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.run_state import RunState
from cosmos_worker.train.trainer import Trainer

EVERY = 8
PASSES = 64
PARTS: dict[str, tuple[type, str]] = {
    "step": (Trainer, "step"),
    "data": (Trainer, "_micro_batch"),
    "average": (RunState, "finish_step"),
    "checkpoint, begin": (RunState, "begin_save"),
    "checkpoint, end": (RunState, "finish_save"),
    "held-out losses": (Trainer, "validation_loss"),
}
"""Part → the method that does it in the training's thread; data and average are parts of the step."""


class Clock:
    """Seconds of each call of the parts, and whether a checkpoint was being written when a step began."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.beside_a_save: list[bool] = []

    def wrap(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method with its time counted."""

        @functools.wraps(method)
        def timed(owner: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if part == "step":
                self.beside_a_save.append(owner.saver._pending is not None)
            begin = time.perf_counter()
            try:
                return method(owner, *arguments, **options)
            finally:
                self.seconds[part].append(time.perf_counter() - begin)

        return timed


def build_experiment(steps: int) -> Experiment:
    """The quickstart's, with everything that interrupts a training every few steps."""
    return get_experiment(
        "video2world_instruction_push_tiny",
        (
            f"trainer.max_steps={steps}", f"trainer.save_every_steps={EVERY}", "trainer.log_every_steps=1",
            f"trainer.validate_every_steps={EVERY}", f"trainer.validation_draws={PASSES // 2}",
            "trainer.trackers=[]", "trainer.threads_per_process=null", "optimizer.decay_start=1.0",
        ),
    )  # fmt: skip


def train(folder: Path, steps: int) -> Clock:
    """Train, and return the times of all parts; two windows are held out, and drawn as often as 64 passes take."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.training import train_config, write_training_inputs

    experiment = build_experiment(steps)
    video = experiment.video
    write_training_inputs(
        folder,
        num_windows=4 * experiment.trainer.global_batch_size,
        num_latent_frames=experiment.latent_frames(video),
        latent_size=(video.height // 8, video.width // 8),
        text_channels=experiment.net.text_channels,
    )
    config = train_config(folder, experiment)
    model = ROOT / "examples/pushing/checkpoints/Cosmos-Tiny-Video2World/model.pt"
    config = config.model_copy(update={"model_uri": str(model)})
    clock = Clock()
    originals = {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, clock.wrap(part, originals[part]))
    try:
        train_stage.run(config, Volumes())
    finally:
        for part, (owner, name) in PARTS.items():
            setattr(owner, name, originals[part])
    return clock


def shares(clock: Clock, interval: int) -> dict[str, float]:
    """Share of the training's time that each part takes, if checkpoints and losses are ``interval`` steps apart."""
    steps = list(zip(clock.seconds["step"], clock.beside_a_save, strict=True))[1:]
    alone = [seconds for seconds, beside in steps if not beside]
    beside = [seconds for seconds, beside in steps if beside]
    step = statistics.median(alone or beside)
    saves = len(clock.seconds["step"]) // EVERY
    ends = sorted(clock.seconds["checkpoint, end"])[:-1]  # the last one waits for the files
    micro_batches = len(clock.seconds["data"]) / len(clock.seconds["step"])
    slower = sum(beside) - len(beside) * step if alone else 0.0
    per_interval = {
        "data": interval * micro_batches * statistics.median(clock.seconds["data"]),
        "average": interval * statistics.median(clock.seconds["average"]),
        "checkpoint": (sum(clock.seconds["checkpoint, begin"]) + sum(ends)) / saves,
        "steps slowed down while it is written": max(0.0, slower) / saves,
        "held-out losses": statistics.median(clock.seconds["held-out losses"]),
    }
    inside = per_interval["data"] + per_interval["average"]
    whole = interval * step + sum(per_interval.values()) - inside
    rest = {"forward, backward, update": (interval * step - inside) / whole}
    return {**rest, **{part: seconds / whole for part, seconds in per_interval.items()}}


def main() -> None:
    """Measure, print a row a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=24, help=f"of the training; {EVERY} apart")
    parser.add_argument("--interval", type=int, default=500, help="steps between checkpoints")
    options = add_options(parser, rounds=1).parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="whole-loop.") as temporary:
        clock = train(Path(temporary), options.steps)
    print(f"| part | share, every {options.interval} steps |\n|---|---|")
    found = shares(clock, options.interval)
    for part, share in found.items():
        print(f"| {part} | {100 * share:.2f} % |")
    print()
    step = {"step": clock.seconds["step"][1:]}
    facts = {
        "shares": found,
        "seconds": dict(clock.seconds),
        "beside_a_save": clock.beside_a_save,
        "interval": options.interval,
    }
    finish("whole-loop", [Comparison("training", "step", step)], options, facts)


if __name__ == "__main__":
    main()
