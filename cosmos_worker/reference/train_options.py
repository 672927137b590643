"""Option names of cosmos-predict1's training, and what they are called here. No torch here.

Names and meanings: its configuration of video2world and video2world_instruction. Its iterations are our steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.experiment import Experiment, check_changes
from cosmos_worker.config.moved_options import moved_option
from cosmos_worker.config.network import KNOWN_FRAME_NOISE, LATENT_SCALE, STRONG_KNOWN_FRAME_NOISE
from cosmos_worker.config.overrides import (
    all_keys,
    parse_override,
)
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.training import START_FACTOR
from cosmos_worker.errors import ConfigError

EXPERIMENT_NAMES = {
    "video2world_7b_example_hdvila": "video2world_7b_example_cosmos_nemo_assets",
}
"""Experiments of the reference whose numbers have another name here."""

Values = dict[str, Any]
"""Our option → value."""
Translate = Callable[[Any], Values]

CONDITION = "model.conditioner.video_cond_bool."

KNOWN_FRAME_OPTIONS = {
    f"{CONDITION}augment_sigma_sample_{name}": values
    for name, *values in zip(
        ("p_mean", "p_std", "multiplier"), KNOWN_FRAME_NOISE, STRONG_KNOWN_FRAME_NOISE, strict=True
    )
}
"""Options of the noise on known frames → its value here, and in the reference's bridge configuration."""


def _same(name: str) -> Translate:
    return lambda value: {name: value}


def _first(name: str) -> Translate:
    """The value of a list with one element per cycle of the schedule, of which there is one."""

    def translate(value: Any) -> Values:  # noqa: ANN401 - any YAML value
        values = value if isinstance(value, list) else [value]
        if len(values) != 1:
            raise ValueError(f"got {value!r}; one cycle is supported, give one value")
        return {name: values[0]}

    return translate


def _choice(choices: Mapping[Any, Values]) -> Translate:
    def translate(value: Any) -> Values:  # noqa: ANN401 - any YAML value
        if not isinstance(value, str | bool | int) or value not in choices:
            allowed = ", ".join(str(choice) for choice in choices)
            raise ValueError(f"got {value!r}; supported: {allowed}")
        return choices[value]

    return translate


def _constant(only: float) -> Translate:
    """A schedule's value that cannot be changed here."""

    def translate(value: Any) -> Values:  # noqa: ANN401 - any YAML value
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        try:
            is_it = float(one) == only  # YAML reads [1e-6] as text in a list
        except (TypeError, ValueError):
            is_it = False
        if not is_it:
            raise ValueError(f"got {value!r}; supported: {only:g}")
        return {}

    return translate


def _pair(first: str, second: str) -> Translate:
    def translate(value: Any) -> Values:  # noqa: ANN401 - any YAML value
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"got {value!r}; expected [number, number]")
        return {first: value[0], second: value[1]}

    return translate


def _latent_shape(value: Any) -> Values:  # noqa: ANN401 - any YAML value
    if not isinstance(value, list) or len(value) != 4 or not all(type(n) is int for n in value):
        raise ValueError(f"got {value!r}; expected [channels, frames, rows, columns]")
    channels, frames, rows, columns = value
    return {
        "net.latent_channels": channels,
        "video.num_pixel_frames": LATENT_SCALE * (frames - 1) + 1,
        "video.height": LATENT_SCALE * rows,
        "video.width": LATENT_SCALE * columns,
    }


KNOWN: dict[str, Translate] = {
    "job.project": _same("project"),
    "job.group": _same("group"),
    "trainer.max_iter": _same("trainer.max_steps"),
    "trainer.logging_iter": _same("trainer.log_every_steps"),
    "trainer.validation_iter": _same("trainer.validate_every_steps"),
    "trainer.distributed_parallelism": _choice(
        {"fsdp": {"parallel.sharding": "full"}, "ddp": {"parallel.sharding": "none"}}
    ),
    "checkpoint.save_iter": _same("trainer.save_every_steps"),
    "dataloader_train.batch_size": _same("trainer.micro_batch_size"),
    "optimizer.lr": _same("optimizer.learning_rate"),
    "optimizer.betas": _pair("optimizer.beta1", "optimizer.beta2"),
    "scheduler.warm_up_steps": _first("optimizer.warmup_steps"),
    "scheduler.f_start": _constant(START_FACTOR),
    "scheduler.f_min": _first("optimizer.final_factor"),
    "scheduler.f_max": _constant(1),
    "model.ema.enabled": _same("ema.enabled"),
    "model.ema.rate": _same("ema.rate"),
    "model.latent_shape": _latent_shape,
    "model.vae.pixel_chunk_duration": _same("tokenizer.chunk_pixel_frames"),
    "model.loss_add_logvar": _same("diffusion.use_logvar"),
    "model.sigma_data": _same("diffusion.sigma_data"),
    "model.sde.p_mean": _same("diffusion.p_mean"),
    "model.sde.p_std": _same("diffusion.p_std"),
    "model.precision": _same("diffusion.compute_dtype"),
    "model.fsdp.checkpoint": _choice(
        {
            True: {"parallel.activation_checkpointing": "block"},
            False: {"parallel.activation_checkpointing": "none"},
        }
    ),
    "model.context_parallel_size": _same("parallel.context_parallel"),
    "model_parallel.context_parallel_size": _same("parallel.context_parallel"),
    "model.conditioner.text.dropout_rate": _same("text.dropout"),
    CONDITION + "dropout_rate": _same("conditioning.flag_dropout"),
    CONDITION + "first_random_n_num_condition_t_min": _same("conditioning.min_cond_latent_frames"),
    CONDITION + "first_random_n_num_condition_t_max": _same("conditioning.max_cond_latent_frames"),
}
"""Option of the reference → ours; options of ours are accepted too."""

ELSEWHERE = {
    "trainer.grad_accum_iter": "trainer.global_batch_size: the samples of a step, in as many passes as they take",
    "trainer.run_validation": "trainer.validate_every_steps: there is a held-out loss before and after in any case",
    "model.adjust_video_noise": "diffusion.sigma_multiplier: 1, or the square root of the latent frames",
    "model.fsdp.sharding_strategy": "parallel.sharding: full or hybrid",
    "model.fsdp.sharding_group_size": "parallel.shard_group_size, with parallel.sharding=hybrid",
    "model.net.extra_per_block_abs_pos_emb": "net.extra_pos_emb: auto, as the checkpoint has it",
    "scheduler.cycle_lengths": "trainer.max_steps, optimizer.decay_start and optimizer.final_factor",
    "checkpoint.load_training_state": "nothing: a run continues from its own checkpoints",
    "checkpoint.strict_resume": "nothing: weights must fit exactly",
    "dataloader_train.dataset": "the documents of prepare-dataset and cache-latents, which come before the training",
    "dataloader_train.num_workers": "nothing: latents are read from the cache",
}
"""Option of the reference, or what it begins with → what does its work here."""


@dataclass(frozen=True)
class ReferenceOptions:
    """The meaning of the words after ``--``."""

    experiment: Experiment
    run_name: str
    model: str | None
    """checkpoint.load_path, if it is given."""


def read_options(words: Sequence[str], world_size: int) -> ReferenceOptions:
    """Translate ``experiment=NAME key.sub=value ..``.

    Args:
        words: as the reference takes them after ``--``; options of ours may stand among them.
        world_size: processes of the training. The reference's batch is that of one of those that see different
            samples; so many times it are the samples of a step, unless trainer.global_batch_size is given.

    Raises:
        ConfigError: with every word that is unknown or has a value that is not supported.
    """
    given = dict(parse_override(word.lstrip("+")) for word in words)
    name = given.pop("experiment", None)
    if not isinstance(name, str):
        raise ConfigError("after --: experiment is missing; give experiment=NAME")
    run_name, model = given.pop("job.name", name), given.pop("checkpoint.load_path", None)
    values = _translate(given)
    base = get_experiment(EXPERIMENT_NAMES.get(name, name))
    share = values.get("parallel.context_parallel", base.parallel.context_parallel)
    micro = values.get("trainer.micro_batch_size", base.trainer.least_micro_batch)
    micro = 1 if micro == "auto" else micro
    if "trainer.global_batch_size" not in values and isinstance(share, int) and share > 0:
        values["trainer.global_batch_size"] = micro * max(1, world_size // share)
    experiment = _with_values(base, values)
    return ReferenceOptions(experiment, str(run_name), None if model is None else str(model))


def _translate(given: Mapping[str, Any]) -> Values:
    """Ours for each of theirs.

    Raises:
        ConfigError: unknown or unsupported ones, all at once.
    """
    ours = set(all_keys(Experiment))
    values, problems = _known_frame_noise(given)
    for name, value in given.items():
        if name in KNOWN_FRAME_OPTIONS:
            continue
        if name in KNOWN:
            try:
                values |= KNOWN[name](value)
            except ValueError as error:
                problems.append(f"after --: {name}: {error}")
        elif name in ours:
            values[name] = value
        elif moved := moved_option(name):
            problems.append(f"after --: {name} is no option any more; {moved}")
        else:
            problems.append(f"after --: {name}: {_advice(name)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return values


def _known_frame_noise(given: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """Our switch for the noise on known frames, and a problem where the options are of neither configuration."""
    asked = {name: given[name] for name in KNOWN_FRAME_OPTIONS if name in given}
    if all(value == KNOWN_FRAME_OPTIONS[name][0] for name, value in asked.items()):
        return {}, []
    if asked == {name: strong for name, (_, strong) in KNOWN_FRAME_OPTIONS.items()}:
        return {"compat.strong_known_frame_noise": True}, []
    allowed = " ".join(f"{name}={strong:g}" for name, (_, strong) in KNOWN_FRAME_OPTIONS.items())
    got = " ".join(f"{name}={value}" for name, value in asked.items())
    return {}, [f"after --: got {got}; supported: none of these options, or {allowed}"]


def _advice(name: str) -> str:
    for prefix, instead in ELSEWHERE.items():
        if name == prefix or name.startswith(f"{prefix}."):
            return f"is not an option here; its work does {instead}"
    near = difflib.get_close_matches(name, [*KNOWN, *all_keys(Experiment)], n=1, cutoff=0.0)[0]
    return f"unknown option; did you mean {near}?"


def _with_values(base: Experiment, values: Values) -> Experiment:
    document = base.model_dump(mode="python")
    for path, value in values.items():
        *parents, last = path.split(".")
        target = document
        for part in parents:
            target = target[part]
        target[last] = value
    experiment = parse_document(Experiment, document, "after --")
    check_changes(base, experiment)
    return experiment
