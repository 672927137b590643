"""Measure how long commands take to answer, and a training to its first step: ``python benchmarks/start_up.py``.

Each is a process of its own, started anew each round. The clock is the processor time of these processes, which other
programs on the machine lengthen little; a wall's clock would measure them. The reference is a process that only
imports PyTorch.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from side_by_side import ROOT, Comparison, add_options, alternate, finish

REFERENCE = "python -c 'import torch'"
CONTINUED = "cosmos-worker train, from a checkpoint to its next step"
JOB = "examples/quickstart.yaml"
SAVED_STEP = 100
FIRST_STEP, NEXT_STEP = " step=1/", f" step={SAVED_STEP + 1}/"
CHECKPOINT = f"checkpoint step={SAVED_STEP} "
"""What the log says at these."""


def processor_time() -> float:
    """Seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def runs(*arguments: str) -> Callable[[], None]:
    """Work that runs Python with these arguments to its end."""

    def run() -> None:
        subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )

    return run


def trains(document: Path, target: Path, until: str, continues: bool = False) -> Callable[[], None]:
    """Work that starts a training and kills it when it says something.

    Args:
        document: of the training.
        target: its folder.
        until: part of a line of its log.
        continues: it goes on from the checkpoint in its folder; False = it begins anew.
    """
    command = [sys.executable, "-m", "cosmos_worker.cli", "train", "--config", str(document)]

    def run() -> None:
        if not continues:
            shutil.rmtree(target, ignore_errors=True)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if until in line:
                    process.kill()
                    return
        raise RuntimeError("".join(said))

    return run


def write_training(folder: Path) -> tuple[Path, Path]:
    """Inputs of a training of a tiny network, whose step takes milliseconds; its document and target folder."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.training import (
        small_experiment,
        train_config,
        write_model,
        write_training_inputs,
    )

    write_training_inputs(folder / "inputs")
    write_model(folder / "inputs" / "model.pt")
    target = folder / "out"
    experiment = small_experiment(max_steps=10_000, save_every_steps=SAVED_STEP)
    config = train_config(folder / "inputs", experiment, target)
    document = folder / "train.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return document, target


def main() -> None:
    """Measure all commands, print the table with seconds and ratios."""
    options = add_options(argparse.ArgumentParser(description=__doc__), rounds=5).parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "operator"), str(ROOT)])
    with tempfile.TemporaryDirectory(prefix="start-up.") as temporary:
        document, target = write_training(Path(temporary))
        ways = {
            REFERENCE: runs("-c", "import torch"),
            "python -c pass": runs("-c", "pass"),
            "cosmos --help": runs("-m", "cosmos_operator.cli", "--help"),
            "cosmos validate": runs("-m", "cosmos_operator.cli", "validate", JOB),
            "cosmos-worker --help": runs("-m", "cosmos_worker.cli", "--help"),
            "cosmos-worker train --help": runs("-m", "cosmos_worker.cli", "train", "--help"),
            "cosmos-worker train, to its first step": trains(document, target, FIRST_STEP),
        }
        seconds = alternate(ways, options.rounds, options.warm_up, processor_time)
        trains(document, target, CHECKPOINT)()
        ways = {CONTINUED: trains(document, target, NEXT_STEP, continues=True)}
        seconds |= alternate(ways, options.rounds, options.warm_up, processor_time)
    print("| process | processor time |\n|---|---|")
    for name, times in seconds.items():
        print(f"| `{name}` | {statistics.median(times):.3f} s |")
    print()
    options.clock = "processor"
    finish("start-up", [Comparison("start", REFERENCE, seconds)], options, {"job": JOB})


if __name__ == "__main__":
    main()
