"""Options of an experiment that have moved or gone: advice for people, and the documents of earlier versions.

No torch here.
"""

from __future__ import annotations

import copy
from typing import Any

from cosmos_worker.config.network import KNOWN_FRAME_NOISE, STRONG_KNOWN_FRAME_NOISE
from cosmos_worker.config.training import START_FACTOR
from cosmos_worker.errors import ConfigError

Values = dict[str, Any]
"""A document, or a part of one, as JSON."""

MOVED_OPTIONS = {
    "text.padding": "'trim' is compat.trimmed_text=true (in a generate document text_padding), 'pad' is the default",
    "diffusion.loss_frames": "'all' is compat.known_frames_in_loss=true, 'generated' is the default",
    "diffusion.sigma_dtype": "'bfloat16' is compat.bfloat16_sigma=true, 'float32' is the default",
    "conditioning.augment_sigma_p_mean": "0 with p_std 1 and multiplier 4 is compat.strong_known_frame_noise=true",
    "conditioning.augment_sigma_p_std": "1 with p_mean 0 and multiplier 4 is compat.strong_known_frame_noise=true",
    "conditioning.augment_sigma_multiplier": "4 with p_mean 0 and p_std 1 is compat.strong_known_frame_noise=true",
    "ema.source_dtype": "'bfloat16' is compat.bfloat16_ema=true, 'float32' is the default",
    "optimizer.on_bad_gradient": "'zero' is compat.zeroed_gradients=true, 'fail' is the default",
    "optimizer.start_factor": "it is 1e-6 in every run; choose optimizer.warmup_steps",
}
"""Options of an experiment that have moved or gone → what is used instead."""

SWITCHES = {
    "trimmed_text": ("text", "padding", "pad", "trim"),
    "known_frames_in_loss": ("diffusion", "loss_frames", "generated", "all"),
    "bfloat16_sigma": ("diffusion", "sigma_dtype", "float32", "bfloat16"),
    "bfloat16_ema": ("ema", "source_dtype", "float32", "bfloat16"),
    "zeroed_gradients": ("optimizer", "on_bad_gradient", "fail", "zero"),
}
"""Switch of ``compat`` → the earlier option: its group and name, its value without and with the behaviour."""
NOISE = ("augment_sigma_p_mean", "augment_sigma_p_std", "augment_sigma_multiplier")
"""Earlier options of ``conditioning`` for the noise on known frames."""


def moved_option(path: str) -> str | None:
    """The advice for an option that has another name now, below ``experiment.`` or alone; None for any other path."""
    return MOVED_OPTIONS.get(path.removeprefix("experiment."))


def of_today(experiment: Values) -> Values:
    """An experiment that an earlier version has written, with the options of today; others are left as they are.

    Raises:
        ConfigError: it has a value that no option of today stands for.
    """
    values = copy.deepcopy(experiment)
    compat: Values = dict(values.get("compat", {}))
    for switch, (group, name, value_without, value_with) in SWITCHES.items():
        if name not in values.get(group, {}):
            continue
        value = values[group].pop(name)
        if value not in (value_without, value_with):
            raise ConfigError(
                f"{group}.{name}: got {value!r}; an earlier version has written {value_without!r} or {value_with!r}"
            )
        compat[switch] = value == value_with
    noise = tuple(
        values["conditioning"].pop(name) for name in NOISE if name in values.get("conditioning", {})
    )
    if noise == STRONG_KNOWN_FRAME_NOISE:
        compat["strong_known_frame_noise"] = True
    elif noise not in ((), KNOWN_FRAME_NOISE):
        raise ConfigError(
            f"conditioning.{{{', '.join(NOISE)}}}: an earlier version has trained with {noise}; this one has "
            f"{KNOWN_FRAME_NOISE} and, with compat.strong_known_frame_noise, {STRONG_KNOWN_FRAME_NOISE}"
        )
    factor = values.get("optimizer", {}).pop("start_factor", START_FACTOR)
    if factor != START_FACTOR:
        raise ConfigError(
            f"optimizer.start_factor: an earlier version has trained with {factor}; in this one it is {START_FACTOR}"
        )
    return {**values, "compat": compat} if compat else values


def document_of_today(stage: str, document: Values) -> Values:
    """A stage document that an operator of an earlier version has written whole, with the options of today.

    The documents of a job that runs while the operator is upgraded stay as they are. A document in which a person has
    written some earlier option is left alone, and refused with the advice of ``MOVED_OPTIONS``.

    Raises:
        ConfigError: it has a value that no option of today stands for.
    """
    experiment, text = document.get("experiment"), document.get("text")
    if stage == "train" and isinstance(experiment, dict) and _is_of_before(experiment):
        return {**document, "experiment": of_today(experiment)}
    is_generate = stage == "generate" and "text_padding" not in document
    if is_generate and isinstance(text, dict) and "padding" in text:
        rest = {name: value for name, value in text.items() if name != "padding"}
        return {**document, "text": rest, "text_padding": text["padding"]}
    return document


def _is_of_before(experiment: Values) -> bool:
    """True for an experiment that has all options of the first version."""
    places = [(group, name) for group, name, _, _ in SWITCHES.values()]
    places += [("conditioning", name) for name in NOISE] + [("optimizer", "start_factor")]
    return all(
        isinstance(experiment.get(group), dict) and name in experiment[group]
        for group, name in places
    )


def as_before(experiment: Values) -> Values:
    """An experiment of today with the options of earlier versions, whose content keys are still in use."""
    values = {name: dict(one) if isinstance(one, dict) else one for name, one in experiment.items()}
    compat = values.pop("compat")
    for switch, (group, name, value_without, value_with) in SWITCHES.items():
        values[group][name] = value_with if compat[switch] else value_without
    noise = STRONG_KNOWN_FRAME_NOISE if compat["strong_known_frame_noise"] else KNOWN_FRAME_NOISE
    values["conditioning"].update(zip(NOISE, noise, strict=True))
    values["optimizer"]["start_factor"] = START_FACTOR
    return values
