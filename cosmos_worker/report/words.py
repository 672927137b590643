"""Numbers, durations and options of an experiment as words for people. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml


def format_number(form: str, value: float) -> str:
    """Format a number without the minus of a rounded zero: -0.04 as +0.0."""
    text = form.format(value)
    return form.format(0.0) if float(re.sub(r"[^-+.0-9]", "", text)) == 0 else text


def format_minutes(seconds: float) -> str:
    """A duration for people: 12 s, 3 min 5 s, or 2 h 3 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def describe_experiment(config: str) -> list[tuple[str, str]]:
    """(name, value) of the main options of a resolved configuration, without those that it lacks."""
    document: Any = yaml.safe_load(config)

    def look_up(path: str) -> Any:  # noqa: ANN401 - any YAML value
        value = document
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    wanted = (
        ("experiment", "experiment.name"),
        ("width", "experiment.net.model_channels"),
        ("blocks", "experiment.net.num_blocks"),
        ("frames", "experiment.video.num_pixel_frames"),
        ("rows", "experiment.video.height"),
        ("columns", "experiment.video.width"),
        ("steps", "experiment.trainer.max_steps"),
        ("samples per step", "experiment.trainer.global_batch_size"),
        ("learning rate", "experiment.optimizer.learning_rate"),
        ("seed", "experiment.trainer.seed"),
    )
    found = [(name, look_up(path)) for name, path in wanted]
    if buckets := look_up("experiment.buckets"):
        sizes = [f"{b['num_pixel_frames']}x{b['height']}x{b['width']}" for b in buckets]
        found = [one for one in found if one[0] not in ("frames", "rows", "columns")]
        found.insert(3, ("buckets (frames x rows x columns)", ", ".join(sizes)))
    return [
        (name, f"{v:g}" if isinstance(v, float) else str(v)) for name, v in found if v is not None
    ]
