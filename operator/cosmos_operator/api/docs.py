"""Reference pages in Markdown, generated from the models: fields of a PostTrainingJob, options of an experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cosmos_operator.api.crd import build_schema
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.overrides import nested_model
from cosmos_worker.config.presets import (
    PRESETS,
    Preset,
)
from cosmos_worker.config.training import TrainerConfig

Row = tuple[str, str, str, str]
PRESET_HEADER = ("experiment", "for", "frames", "size", "steps", "samples a step", "GPUs")


def job_page() -> str:
    """The page of all fields of spec and status: path, type, default, meaning."""
    schema = build_schema()["properties"]
    parts = [
        "# PostTrainingJob `cosmos.dev/v1alpha1`",
        "Generated from the models by `cosmos fields job`; a test compares this page with them.",
    ]
    for name in ("spec", "status"):
        parts += [
            f"## {name}",
            _table(("field", "type", "default", "meaning"), _schema_rows(schema[name], name)),
        ]
    return "\n\n".join(parts) + "\n"


def experiment_page() -> str:
    """The page of all presets and options: values of the first preset, and differences of the others."""
    first, *others = [preset.experiment for preset in PRESETS]
    options = [
        (f"`{path}`", _value(_get(first, path)), description)
        for path, description in _options(Experiment)
    ]
    note = (
        "Written from the models by `cosmos fields experiment`; a test keeps this page in step with them. "
        "`cosmos-worker experiments` prints the memory that each needs; [memory.md](memory.md) says how it is computed."
    )
    change = (
        "Change an option with `training.overrides: [key.sub=value]`. `null` means: see its meaning; "
        f"for example `trainer.init` is one of {', '.join(_choices(TrainerConfig, 'init'))}."
    )
    return (
        "\n\n".join(
            [
                "# Experiments",
                note,
                _table(PRESET_HEADER, map(_preset_row, PRESETS)),
                "## Options",
                change,
                _table(("option", f"`{first.name}`", "meaning"), options),
                "## Where the others differ",
                _table(("experiment", "options"), [_differences(first, other) for other in others]),
            ]
        )
        + "\n"
    )


def _preset_row(preset: Preset) -> tuple[str, ...]:
    experiment, hardware = preset.experiment, preset.hardware
    video, trainer = experiment.video, experiment.trainer
    return (
        f"`{experiment.name}`",
        preset.description,
        str(video.num_pixel_frames),
        f"{video.height}x{video.width}",
        str(trainer.max_steps),
        str(trainer.global_batch_size),
        "none" if hardware is None else f"{hardware.num_gpus} of {hardware.gpu_memory_gib} GB",
    )


def _differences(first: Experiment, other: Experiment) -> tuple[str, str]:
    changed = [path for path, _ in _options(Experiment) if _get(first, path) != _get(other, path)]
    values = [f"`{path}={_value(_get(other, path))[1:]}" for path in changed if path != "name"]
    return f"`{other.name}`", ", ".join(values)


def _schema_rows(schema: dict[str, Any], path: str) -> Iterator[Row]:
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        items = child.get("items", {})
        default = (
            _value(child["default"]) if "default" in child and not child.get("properties") else ""
        )
        yield f"`{here}`", _type(child), default, child.get("description", "")
        yield from _schema_rows(child, here)
        yield from _schema_rows(items, f"{here}[]")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema.get("type", "any"))


def _options(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        nested = nested_model(field)
        if nested is None:
            yield prefix + name, field.description or ""
        else:
            yield from _options(nested, f"{prefix}{name}.")


def _choices(model: type[BaseModel], name: str) -> list[str]:
    return [f"`{value}`" for value in model.model_json_schema()["properties"][name]["enum"]]


def _get(value: Any, path: str) -> Any:  # noqa: ANN401 - walks models of any type
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _value(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return f"`{json.dumps(value) if not isinstance(value, float) else format(value, '.6g')}`"


def _table(header: tuple[str, ...], rows: Any) -> str:  # noqa: ANN401 - rows of any length
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in rows
    ]
    return "\n".join(lines)
