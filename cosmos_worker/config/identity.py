"""Options that decide the weights of a run, told from those that change only its speed, its log and its files.

No torch here.
"""

from __future__ import annotations

from typing import Any

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import (
    decays,
    warmup_steps,
)

TRAINER_PACE = (
    "micro_batch_size",
    "save_every_steps",
    "save_every_minutes",
    "keep_last",
    "keep_exports",
    "log_every_steps",
    "validate_every_steps",
    "validation_windows",
    "validation_draws",
    "validation_sigmas",
    "keep_best",
    "sample_every_steps",
    "sample_count",
    "sample_steps",
    "trackers",
    "device",
    "threads_per_process",
)
"""Trainer settings that change how a run proceeds, not what it computes: the sum over the global batch is the same."""

INPUTS_THAT_DECIDE_WEIGHTS = (
    "model_uri",
    "model_lora_scale",
    "dataset_uri",
    "embeddings_uri",
    "latents_uri",
)
"""Values of a training's document that decide its weights beside the options of its experiment."""


def options_that_decide_weights(experiment: Experiment) -> dict[str, Any]:
    """The options that decide the weights of each step; a run is continued only under the same ones."""
    options = _without_pace(experiment)
    optimizer, trainer = experiment.optimizer, experiment.trainer
    options["optimizer"]["warmup_steps"] = warmup_steps(optimizer, trainer.max_steps)
    if not decays(optimizer):  # runs of any length have the same weights at each step
        del options["trainer"]["max_steps"]
    return options


def options_but_length(experiment: Experiment) -> dict[str, Any]:
    """The options that decide the weights, but for the number of steps: of runs that differ in nothing else."""
    options = _without_pace(experiment)
    del options["trainer"]["max_steps"]
    return options


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


def _without_pace(experiment: Experiment) -> dict[str, Any]:
    return experiment.model_dump(
        mode="json",
        exclude={
            "trainer": set(TRAINER_PACE),
            "tokenizer": {"batch_size"},
            "optimizer": {"implementation"},
            "parallel": True,
            "acceleration": {"attention", "compile"},
        },
    )
