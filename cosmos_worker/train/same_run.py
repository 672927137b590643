"""Runs in the folder of a training: the same one, continued; one that went further; others by their steps only.

A run continues one of another length where its learning rate is constant after the warm-up: then both have the same
folder. Otherwise it has a folder of its own, and people are told which run there is and how the schedules differ.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import decisive_options, options_but_length
from cosmos_worker.config.stages import (
    TrainConfig,
    load_yaml,
    parse_document,
)
from cosmos_worker.config.training import (
    decays,
    describe_schedule,
    warmup_steps,
)
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.storage.volumes import (
    EXPORT_FOLDER,
    RESOLVED_CONFIG_FILE,
    Volumes,
    run_folder,
)
from cosmos_worker.train.checkpoint import (
    SavedState,
    list_states,
    read_progress,
)
from cosmos_worker.train.export import list_exports

logger = logging.getLogger(__name__)


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Paths whose values differ, as ``key.sub (old -> new)``."""
    found = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differing_keys(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} ({before!r} -> {now!r})")
    return found


def check_same_options(state: SavedState, experiment: Experiment) -> None:
    """Raise CheckpointError if a checkpoint was trained with other options than those of an experiment."""
    # options that came later have their defaults, which is what the run was trained with
    saved = parse_document(Experiment, state.progress["experiment"], str(state.folder))
    old, new = decisive_options(saved), decisive_options(experiment)
    differing = differing_keys(old, new)
    if not differing:
        return
    rates = ""
    if old["trainer"].get("max_steps") != new["trainer"].get("max_steps"):
        steps = experiment.trainer.max_steps
        rates = f" (learning rates now: {describe_schedule(experiment.optimizer, steps)})"
    raise CheckpointError(
        f"{state.folder}: was trained with other options: {', '.join(differing)}{rates}; "
        "continue with the same options, or start a run of another name"
    )


def with_begun_warmup(run: Path, experiment: Experiment) -> Experiment:
    """The experiment with the warm-up that the run in a folder began with.

    A warm-up that is not given follows from the number of steps. A run of a constant learning rate that is continued to
    another number of steps keeps the one of its beginning.
    """
    states, optimizer = list_states(run), experiment.optimizer
    if not states or optimizer.warmup_steps is not None or decays(optimizer):
        return experiment
    folder = states[-1][1]
    saved = parse_document(Experiment, read_progress(folder)["experiment"], str(folder))
    warmup = warmup_steps(saved.optimizer, saved.trainer.max_steps)
    kept = optimizer.model_copy(update={"warmup_steps": warmup})
    return experiment.model_copy(update={"optimizer": kept})


def has_done_more(run: Path, experiment: Experiment) -> bool:
    """Whether a run has done more steps than an experiment asks for, and its weights of the asked step are kept.

    Raises:
        CheckpointError: it has done more, and they are not kept; or it was trained with other options.
    """
    states, asked = list_states(run), experiment.trainer.max_steps
    if not states or states[-1][0] <= asked:
        return False
    done, folder = states[-1]
    check_same_options(SavedState(folder, read_progress(folder)), experiment)
    kinds = ("reg", "ema") if experiment.ema.enabled else ("reg",)
    kept = set.intersection(*(set(list_exports(run, kind)) for kind in kinds))
    if asked not in kept:
        steps = ", ".join(map(str, sorted(kept))) or "none"
        raise CheckpointError(
            f"{run}: has done {done} steps, more than trainer.max_steps={asked} (spec.training.steps), and the weights "
            f"of step {asked} are not kept (kept: {steps}); set the number of steps to one of these, or rename the "
            "job to train it anew"
        )
    logger.warning("nothing is trained: done_steps=%d asked=%d folder=%s", done, asked, run)
    return True


KEYED_NAME = re.compile(r"^(?P<job>.+)-[0-9a-f]{12}$")
"""An output root of the plan: the job's name and a content key."""
EXPORT_NAME = re.compile(r"^iter_(\d{9})_reg_model\.pt$")


@dataclass(frozen=True)
class EarlierRun:
    """A run that was begun: its folder, its document, and the steps of its latest exported weights."""

    folder: Path
    config: TrainConfig
    steps: int

    @property
    def max_steps(self) -> int:
        """Steps that were asked for."""
        return self.config.experiment.trainer.max_steps


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
        return EarlierRun(
            folder, parse_document(TrainConfig, load_yaml(path), str(path)), steps[-1]
        )
    except ConfigError:
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
    places = config.model_dump(
        mode="json", exclude={"key", "target_uri", "tokenizer_uri", "experiment"}
    )
    return {**places, "experiment": options_but_length(config.experiment)}


def describe_length(config: TrainConfig, volumes: Volumes) -> str | None:
    """What a changed number of steps means for a training; None if there is no run of another length.

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
            f"the run in {folder} has done {own.steps} steps, more than the {asked} that are asked for: nothing is "
            f"trained, and the weights of step {asked} are used if they are kept ({_kept_schedule(config, own)})"
        )
    if own.max_steps != asked and own.steps < asked:
        return (
            f"the run in {folder} is continued from its {own.steps} steps to {asked}: the schedule of its learning "
            f"rate stays as it was ({_kept_schedule(config, own)})"
        )
    return None


def _kept_schedule(config: TrainConfig, own: EarlierRun) -> str:
    """The schedule that a run was begun with, and how another number of steps would have begun it."""
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
        f"({describe_schedule(experiment.optimizer, asked)}) than the run of {other.max_steps} steps in {other.folder} "
        f"({describe_schedule(old, other.max_steps)}), which has done {other.steps}; to use that run, set "
        f"spec.training.steps back to {other.max_steps}; to train its weights further under the new schedule, give the "
        "folder of its published model as spec.model.source, and another spec.outputs.name"
    )
