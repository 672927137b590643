"""Compares the run in a folder with the experiment that is asked for: options, warm-up, steps done."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import differing_keys, options_that_decide_weights
from cosmos_worker.config.moved_options import of_today
from cosmos_worker.config.training import (
    decays,
    describe_schedule,
    warmup_steps,
)
from cosmos_worker.errors import CheckpointError
from cosmos_worker.train.checkpoint import SavedState, list_states, read_progress
from cosmos_worker.train.export import list_exports

logger = logging.getLogger(__name__)

ROUNDING = "rounding"
"""Entry of a checkpoint's progress: see :func:`options_of_rounding`."""


def experiment_of(progress: dict[str, Any], folder: Path) -> Experiment:
    """The experiment that a checkpoint was trained with; options that came later have their defaults."""
    return parse_document(Experiment, of_today(progress["experiment"]), str(folder))


def check_same_options(state: SavedState, experiment: Experiment) -> None:
    """Raise CheckpointError if a checkpoint was trained with other options than those of an experiment."""
    saved = experiment_of(state.progress, state.folder)
    old, new = options_that_decide_weights(saved), options_that_decide_weights(experiment)
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


def options_of_rounding(experiment: Experiment) -> dict[str, Any]:
    """Options that the GPU may decide, which change a step by the rounding of its sums."""
    return {
        "acceleration.attention": experiment.acceleration.attention,
        "parallel.activation_checkpointing": experiment.parallel.activation_checkpointing,
        "trainer.micro_batch_size": experiment.trainer.micro_batch_size,
    }


def tell_other_rounding(state: SavedState, experiment: Experiment) -> None:
    """Log a warning if a checkpoint was trained with other options of :func:`options_of_rounding`."""
    saved = state.progress.get(ROUNDING)  # not in checkpoints of before
    differing = differing_keys(saved, options_of_rounding(experiment)) if saved else []
    if differing:
        logger.warning(
            "%s: continued with %s; steps differ by rounding from those of one run with the same options, for which "
            "set them in place of auto",
            state.folder,
            ", ".join(differing),
        )


def with_initial_warmup(run: Path, experiment: Experiment) -> Experiment:
    """The experiment with the warm-up that the run in a folder began with.

    A warm-up that is not set follows from the number of steps. A run of a constant learning rate that is continued to
    another number of steps keeps its first warm-up.
    """
    states, optimizer = list_states(run), experiment.optimizer
    if not states or optimizer.warmup_steps is not None or decays(optimizer):
        return experiment
    folder = states[-1][1]
    saved = experiment_of(read_progress(folder), folder)
    warmup = warmup_steps(saved.optimizer, saved.trainer.max_steps)
    kept = optimizer.model_copy(update={"warmup_steps": warmup})
    return experiment.model_copy(update={"optimizer": kept})


def is_beyond(run: Path, experiment: Experiment) -> bool:
    """True if a run has done more steps than an experiment asks for and still has the weights of the asked step.

    A run of other options is refused here, before anything is written into its folder.

    Raises:
        CheckpointError: it has done more, and they are not kept; or it was trained with other options.
    """
    states, asked = list_states(run), experiment.trainer.max_steps
    if not states:
        return False
    done, folder = states[-1]
    check_same_options(SavedState(folder, read_progress(folder)), experiment)
    if done <= asked:
        return False
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
