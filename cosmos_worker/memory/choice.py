"""Activation checkpointing and micro-batch, where a training leaves them to the memory of its GPUs. No torch here."""

from __future__ import annotations

from dataclasses import replace

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import CHECKPOINTING
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.plan import Setup, plan_memory

FILLED = 0.9
"""Share of a GPU's memory that a choice may fill, since the plan's activations are estimates."""
MAX_MICRO_BATCH = 64


def leaves_a_choice(experiment: Experiment) -> bool:
    """True if activation checkpointing or the micro-batch is ``auto``."""
    return "auto" in (
        experiment.parallel.activation_checkpointing,
        experiment.trainer.micro_batch_size,
    )


def with_choice(experiment: Experiment, checkpointing: str, micro_batch_size: int) -> Experiment:
    """The experiment with what was chosen for it."""
    parallel = {"activation_checkpointing": checkpointing}
    trainer = {"micro_batch_size": micro_batch_size}
    return experiment.model_copy(
        update={
            "parallel": experiment.parallel.model_copy(update=parallel),
            "trainer": experiment.trainer.model_copy(update=trainer),
        }
    )


def choose(setup: Setup) -> Setup:
    """The setup with an activation checkpointing and a micro-batch in place of each ``auto``.

    First comes the checkpointing that computes least again, then the largest micro-batch that divides the samples of a
    process: the first pair whose plan fills at most :data:`FILLED` of a GPU. Where none does, it is the pair that takes
    least memory. The weights that are trained are the same but for rounding.

    Args:
        setup: whose ``activation_checkpointing`` is that of its experiment.

    Raises:
        ConfigError: numbers that do not divide.
    """
    experiment = setup.experiment
    if not leaves_a_choice(experiment):
        return setup
    asked = experiment.parallel.activation_checkpointing
    kinds = [one for one in CHECKPOINTING if one == asked or asked == "auto"]
    if experiment.acceleration.linear == "transformer_engine_float8" and asked == "auto":
        kinds.remove("selective")  # which cannot keep the results of its products
    least = with_choice(experiment, kinds[-1], experiment.trainer.least_micro_batch)
    chosen = replace(setup, experiment=least, activation_checkpointing=kinds[-1])
    plan_memory(chosen)  # refuses numbers that do not divide
    for kind in kinds:
        for size in _sizes(setup):
            changed = with_choice(experiment, kind, size)
            one = replace(setup, experiment=changed, activation_checkpointing=kind)
            if plan_memory(one).total <= FILLED * setup.gpu_memory:
                return one
    return chosen


def _sizes(setup: Setup) -> list[int]:
    """Micro-batches that may be chosen, the largest first."""
    trainer = setup.experiment.trainer
    if trainer.micro_batch_size != "auto":
        return [trainer.micro_batch_size]
    if setup.experiment.compat.trimmed_text:
        return [1]
    samples = setup.samples_per_group
    return [size for size in range(min(samples, MAX_MICRO_BATCH), 0, -1) if samples % size == 0]


def describe_choice(setup: Setup) -> str:
    """A line for the log: what was chosen, and the memory that it takes by the plan, in GiB."""
    try:
        plan = plan_memory(setup)
    except ConfigError:  # the training says so itself
        return ""
    parallel, trainer = setup.experiment.parallel, setup.experiment.trainer
    return (
        f"activation_checkpointing={parallel.activation_checkpointing} micro_batch_size={trainer.micro_batch_size} "
        f"planned_gib={plan.total / 2**30:.1f} gpu_gib={setup.gpu_memory / 2**30:.1f}"
    )
