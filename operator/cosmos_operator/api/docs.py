"""Reference pages in Markdown, generated from the models: fields of the jobs, options of an experiment."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cosmos_operator.api.crd import (
    INFERENCE_JOB,
    POST_TRAINING_JOB,
    ResourceKind,
    build_schema,
)
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.overrides import nested_model
from cosmos_worker.config.presets import (
    PRESETS,
    Preset,
)

Row = tuple[str, str, str, str]
FIRST_OPTIONS = (
    "trainer.max_steps",
    "trainer.global_batch_size",
    "optimizer.learning_rate",
    "lora.rank",
    "video.num_pixel_frames",
    "video.height",
    "video.width",
    "trainer.save_every_steps",
    "trainer.sample_every_steps",
    "trainer.keep_best",
)
"""The options that people change first."""


class Group(NamedTuple):
    """Options with one purpose: those that are named, or begin with a name that ends with a dot."""

    title: str
    text: str
    names: tuple[str, ...]


GROUPS = (
    Group(
        "Windows and latents",
        "The pixels that one sample shows, and their way through the tokenizer. With `video.num_pixel_frames` change "
        "`tokenizer.chunk_pixel_frames` too.",
        ("video.", "buckets", "tokenizer."),
    ),
    Group(
        "Captions and known frames",
        "What the network is shown beside the noisy latents.",
        ("text.", "conditioning."),
    ),
    Group("Noise and loss", "EDM (Karras et al. 2022).", ("diffusion.",)),
    Group("Optimizer and average", "AdamW, its schedule, and the average of the weights.", ("optimizer.", "ema.")),
    Group("LoRA", "A low-rank correction instead of all weights: [lora.md](lora.md).", ("lora.",)),
    Group(
        "Length and start",
        "",
        ("name", "project", "group", "trainer.max_steps", "trainer.global_batch_size", "trainer.seed", "trainer.init"),
    ),
    Group(
        "Saving, validating, watching",
        "None of these changes the weights of a step.",
        (
            "trainer.save_every_", "trainer.keep_", "trainer.log_every_steps", "trainer.validat",
            "trainer.sample_", "trainer.trackers",
        ),
    ),
    Group(
        "Processes, memory and speed",
        "The weights of a step change by rounding only: [memory.md](memory.md).",
        (
            "trainer.micro_batch_size", "trainer.device", "trainer.threads_per_process", "parallel.", "acceleration.",
        ),
    ),
    Group(
        "Behaviours of the reference",
        "Each switch brings one of them back, for comparison with NVIDIA's trainer. Its warm-up is "
        "`optimizer.warmup_steps=2500`.",
        ("compat.",),
    ),
    Group(
        "The network",
        "Decided by the checkpoint: these options, and `diffusion.sigma_data`, can be changed only with "
        "`trainer.init=random`.",
        ("net.",),
    ),
)  # fmt: skip
"""All options of an experiment by purpose, in the order in which people ask for them."""

PRESET_HEADER = ("experiment", "for", "frames", "size", "steps", "samples a step", "GPUs")


def job_page() -> str:
    """The page of all fields of a PostTrainingJob."""
    return _fields_page(POST_TRAINING_JOB, "cosmos fields job")


def inference_job_page() -> str:
    """The page of all fields of an InferenceJob."""
    return _fields_page(INFERENCE_JOB, "cosmos fields inferencejob")


def _fields_page(resource: ResourceKind, command: str) -> str:
    """The page of all fields of spec and status: path, type, default, meaning."""
    schema = build_schema(resource)["properties"]
    parts = [
        f"# {resource.kind} `cosmos.dev/v1alpha1`",
        f"Generated from the models by `{command}`; a test compares this page with them.",
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
    note = (
        "Written from the models by `cosmos fields experiment`; a test keeps this page in step with them. "
        "`cosmos-worker experiments` prints the memory that each needs; [memory.md](memory.md) says how it is computed."
        " '80 GB' is a GPU's trade name, counted as 80 GiB; give `cosmos-worker plan` what `nvidia-smi` shows, such as "
        "`81559MiB`."
    )
    change = (
        "Change an option with `training.overrides: [key.sub=value]`; values are YAML, so that `null`, `1e-4` and "
        "`[1, 2]` can be written. Every option is in one table below, those that people change first in two."
    )
    return (
        "\n\n".join(
            [
                "# Experiments",
                note,
                _table(PRESET_HEADER, map(_preset_row, PRESETS)),
                "## Options",
                change,
                "### Changed first",
                _option_table(first, FIRST_OPTIONS),
                *(part for group in GROUPS for part in _group_parts(first, group)),
                "## Where the others differ",
                _table(("experiment", "options"), [_differences(first, other) for other in others]),
            ]
        )
        + "\n"
    )


def group_of(path: str) -> Group:
    """The only group that an option is of.

    Raises:
        LookupError: none, or several.
    """
    found = [group for group in GROUPS if any(_is_named(path, name) for name in group.names)]
    if len(found) != 1:
        raise LookupError(f"{path} is of {len(found)} groups of GROUPS; it must be of one")
    return found[0]


def _is_named(path: str, name: str) -> bool:
    return path == name or (name.endswith((".", "_", "validat")) and path.startswith(name))


def _group_parts(first: Experiment, group: Group) -> list[str]:
    paths = [path for path, _ in _options(Experiment) if group_of(path) is group]
    return [
        f"### {group.title}",
        *([group.text] if group.text else []),
        _option_table(first, paths),
    ]


def _option_table(first: Experiment, paths: Iterable[str]) -> str:
    meanings = dict(_options(Experiment))
    rows = [(f"`{path}`", _value(_get(first, path)), meanings[path]) for path in paths]
    return _table(("option", f"`{first.name}`", "meaning"), rows)


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
            yield prefix + name, f"{field.description or ''}{_choices(field)}"
        else:
            yield from _options(nested, f"{prefix}{name}.")


def _choices(field: FieldInfo) -> str:
    """The allowed values of an option that is one of a few, as a sentence; otherwise nothing."""
    kinds = [field.annotation, *typing.get_args(field.annotation)]
    values = [
        value
        for kind in kinds
        if typing.get_origin(kind) is Literal
        for value in typing.get_args(kind)
    ]
    return f" One of {', '.join(f'`{json.dumps(value)}`' for value in values)}." if values else ""


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
