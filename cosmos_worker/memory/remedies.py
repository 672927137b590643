"""Changed options that make a training fit into its GPUs, for a message that refuses it. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cosmos_worker.config.training import Checkpointing
from cosmos_worker.config.values import gib
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.plan import MemoryPlan, Setup, plan_memory

MAX_GPUS = 256
SHOWN_SINGLE = 3
STRONGER: dict[Checkpointing, tuple[Checkpointing, ...]] = {
    "none": ("selective", "block"),
    "selective": ("block",),
    "block": (),
}
"""Kinds of activation checkpointing that keep less than a kind, the faster first."""


@dataclass(frozen=True)
class Remedy:
    """A changed setup and the arguments of ``cosmos-worker plan`` that ask for it."""

    arguments: str
    setup: Setup


def _without_ema(setup: Setup) -> Setup:
    ema = setup.experiment.ema.model_copy(update={"enabled": False})
    return replace(setup, experiment=setup.experiment.model_copy(update={"ema": ema}))


def _small_moments(setup: Setup) -> Setup:
    optimizer = setup.experiment.optimizer.model_copy(update={"state_bits": 8})
    return replace(setup, experiment=setup.experiment.model_copy(update={"optimizer": optimizer}))


def _single_samples(setup: Setup) -> Setup:
    trainer = setup.experiment.trainer.model_copy(update={"micro_batch_size": 1})
    return replace(setup, experiment=setup.experiment.model_copy(update={"trainer": trainer}))


def _without_samples(setup: Setup) -> Setup:
    trainer = setup.experiment.trainer.model_copy(update={"sample_every_steps": None})
    return replace(setup, experiment=setup.experiment.model_copy(update={"trainer": trainer}))


def _changes(setup: Setup) -> Iterator[Remedy]:
    """Single changes of a setup, those that do not change the trained weights first."""
    if setup.num_gpus > 1 and setup.sharding != "full":
        yield Remedy("parallel.sharding=full", replace(setup, sharding="full"))
    for kind in STRONGER[setup.activation_checkpointing]:
        yield Remedy(
            f"parallel.activation_checkpointing={kind}",
            replace(setup, activation_checkpointing=kind),
        )
    if setup.micro_batch_size > 1:
        yield Remedy("trainer.micro_batch_size=1", _single_samples(setup))
    if setup.num_gpus % (2 * setup.context_parallel) == 0:
        parallel = 2 * setup.context_parallel
        yield Remedy(
            f"parallel.context_parallel={parallel}", replace(setup, context_parallel=parallel)
        )
    if setup.experiment.trainer.sample_every_steps is not None:
        yield Remedy("trainer.sample_every_steps=null", _without_samples(setup))
    optimizer = setup.experiment.optimizer
    if optimizer.state_bits == 32 and optimizer.implementation == "torch":
        yield Remedy("optimizer.state_bits=8", _small_moments(setup))
    if setup.experiment.ema.enabled:
        yield Remedy("ema.enabled=false", _without_ema(setup))


def _fits(setup: Setup) -> bool:
    try:
        return plan_memory(setup).fits
    except ConfigError:  # the change does not divide something
        return False


def _combined(setup: Setup) -> Remedy | None:
    """Changes one upon the other until the setup fits; None if it never does."""
    arguments: list[str] = []
    while not _fits(setup):
        option = next(
            (one for one in _changes(setup) if _is_gain(setup, one.setup)),
            None,
        )
        if option is None:
            return None
        arguments, setup = [*arguments, option.arguments], option.setup
    return Remedy(" ".join(_latest(arguments)), setup)


def _is_gain(before: Setup, after: Setup) -> bool:
    try:
        return plan_memory(after).total < plan_memory(before).total
    except ConfigError:
        return False


def _latest(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that a later one of the same option overrides."""
    return list({argument.split()[0].split("=")[0]: argument for argument in arguments}.values())


def _more_gpus(setup: Setup) -> Remedy | None:
    """The fewest GPUs, a power of two, that suffice with full sharding and block checkpointing."""
    gpus = 2
    while gpus <= MAX_GPUS:
        more = replace(setup, num_gpus=gpus, sharding="full", activation_checkpointing="block")
        if gpus > setup.num_gpus and _fits(more):
            return Remedy(
                f"--gpus {gpus} parallel.sharding=full parallel.activation_checkpointing=block",
                more,
            )
        gpus *= 2
    return None


def find_remedies(setup: Setup) -> list[Remedy]:
    """Setups that fit: by single changes, else by a combination, and with more GPUs."""
    single = [one for one in _changes(setup) if _fits(one.setup)][:SHOWN_SINGLE]
    others = [] if single else [_combined(setup)]
    return [*single, *(one for one in (*others, _more_gpus(setup)) if one is not None)]


def require_fit(plan: MemoryPlan) -> None:
    """Check that a plan fits its GPUs.

    Raises:
        ConfigError: it does not; names the remedies.
    """
    if plan.fits:
        return
    setup = plan.setup
    remedies = [
        f"{one.arguments} ({gib(plan_memory(one.setup).total)})" for one in find_remedies(setup)
    ]
    advice = (
        "it fits with " + ", or with ".join(remedies)
        if remedies
        else "no option makes it fit; use GPUs with more memory, or a smaller video or network"
    )
    raise ConfigError(
        f"{setup.experiment.name}: needs {gib(plan.total)} on every GPU of {setup.num_gpus}, "
        f"which has {gib(setup.gpu_memory)}; {advice}"
    )
