"""Runs that differ from a training in their number of steps only: continued, or begun anew. No torch here.

A run continues one of another length where its learning rate is constant after the warm-up: then both have the same
folder. Otherwise it has a folder of its own, and a message names the earlier run and the difference of the schedules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.documents import load_yaml, parse_document
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import options_but_length
from cosmos_worker.config.moved_options import of_today
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.config.training import (
    describe_schedule,
    warmup_steps,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import (
    EXPORT_FOLDER,
    RESOLVED_CONFIG_FILE,
    Volumes,
    run_folder,
)

KEYED_NAME = re.compile(r"^(?P<job>.+)-[0-9a-f]{12}$")
"""An output root of the plan: the job's name and a content key."""
EXPORT_NAME = re.compile(r"^iter_(\d{9})_reg_model\.pt$")


@dataclass(frozen=True)
class EarlierRun:
    """A run with exported weights: its folder, its document, and the steps of its latest weights."""

    folder: Path
    config: TrainConfig
    steps: int

    @property
    def max_steps(self) -> int:
        """Number of steps in the run's document."""
        return self.config.experiment.trainer.max_steps


NOT_DECIDING = {
    "key", "target_uri", "tokenizer_uri", "experiment", "start_from", "job", "published_uri",
}  # fmt: skip
"""Fields of a training's document that say nothing about its weights, or are compared by themselves."""


def folder_of(config: TrainConfig, volumes: Volumes) -> Path:
    """Folder of a training's run."""
    experiment = config.experiment
    root = volumes.resolve(config.target_uri)
    return run_folder(root, experiment.project, experiment.group, config.run_name)


def exported_steps(run: Path) -> list[int]:
    """Steps whose weights are there, ascending."""
    names = (path.name for path in (run / EXPORT_FOLDER).glob("iter_*_reg_model.pt"))
    return sorted(int(match[1]) for name in names if (match := EXPORT_NAME.match(name)))


def read_run(folder: Path) -> EarlierRun | None:
    """A run with exported weights; None if there is none that this version can read."""
    steps = exported_steps(folder)
    if not steps:
        return None
    path = folder / RESOLVED_CONFIG_FILE
    try:
        document = load_yaml(path)
        document = {**document, "experiment": of_today(document["experiment"])}
        return EarlierRun(folder, parse_document(TrainConfig, document, str(path)), steps[-1])
    except (ConfigError, KeyError, TypeError):
        return None


def find_other_runs(config: TrainConfig, volumes: Volumes) -> Iterator[EarlierRun]:
    """Runs of the same job in other folders that differ in their number of steps only.

    Args:
        config: document of a training.
        volumes: where its folders are.
    """
    root = volumes.resolve(config.target_uri)
    own = KEYED_NAME.match(root.name)
    if own is None or not root.parent.is_dir():
        return
    for other in sorted(root.parent.iterdir()):
        match = KEYED_NAME.match(other.name)
        if match is None or match["job"] != own["job"] or other == root:
            continue
        run = read_run(other / folder_of(config, volumes).relative_to(root))
        if run is not None and _all_but_length(run.config) == _all_but_length(config):
            yield run


def _all_but_length(config: TrainConfig) -> dict[str, Any]:
    others = config.model_dump(mode="json", exclude=NOT_DECIDING)
    return {**others, "experiment": options_but_length(config.experiment)}


def describe_length(config: TrainConfig, volumes: Volumes) -> str | None:
    """Sentence on the effect of a changed number of steps on a training; None if no run has another length.

    Args:
        config: document of a training that has not begun, or is not complete.
        volumes: where its folders are.
    """
    folder, asked = folder_of(config, volumes), config.experiment.trainer.max_steps
    own = read_run(folder)
    if own is None:
        others = sorted(find_other_runs(config, volumes), key=lambda run: run.steps)
        return _begins_anew(config.experiment, folder, others[-1]) if others else None
    if own.steps > asked:
        return (
            f"the run in {folder} has done {counted(own.steps, 'step')}, more than the {asked} that are asked for: "
            f"nothing is trained, and the weights of step {asked} are used if they are kept "
            f"({_kept_schedule(config, own)})"
        )
    if own.max_steps != asked and own.steps < asked:
        return (
            f"the run in {folder} is continued from its {counted(own.steps, 'step')} to {asked}: the schedule of its "
            f"learning rate stays as it was ({_kept_schedule(config, own)})"
        )
    return None


def _kept_schedule(config: TrainConfig, own: EarlierRun) -> str:
    """The learning rate's schedule of a run, and the warm-up that the other number of steps would have had."""
    old, new = own.config.experiment.optimizer, config.experiment.optimizer
    asked = config.experiment.trainer.max_steps
    told = describe_schedule(old, own.max_steps)
    warmup = warmup_steps(new, asked)
    if new.warmup_steps is None and warmup != warmup_steps(old, own.max_steps):
        told += f"; a run of {asked} steps from the beginning has a warm-up of {warmup}"
    return told


def _begins_anew(experiment: Experiment, folder: Path, other: EarlierRun) -> str:
    asked, old = experiment.trainer.max_steps, other.config.experiment.optimizer
    return (
        f"training begins anew in {folder}: {asked} steps have another schedule of the learning rate "
        f"({describe_schedule(experiment.optimizer, asked)}) than the run of {counted(other.max_steps, 'step')} "
        f"in {other.folder} ({describe_schedule(old, other.max_steps)}), which has done {other.steps}; to use that "
        f"run, create the job with spec.training.steps={other.max_steps}; to train its weights further "
        "under the new schedule, give the folder of its published model as spec.model.source, and another "
        "spec.outputs.name"
    )
