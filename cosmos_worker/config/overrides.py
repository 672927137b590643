"""Overrides ``key.sub=value`` of a typed document, and documents read from files; errors name the nearest key.

No torch here.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cosmos_worker.config.document_version import HINTS_FILE, with_hints, without_version
from cosmos_worker.config.documents import describe_errors, load_yaml, parse_document
from cosmos_worker.config.experiment import check_changes
from cosmos_worker.config.moved_options import document_of_today, moved_option
from cosmos_worker.config.stages import STAGE_CONFIGS, StageConfig, TrainConfig
from cosmos_worker.config.values import MAX_TEXT, shortened
from cosmos_worker.config.yaml_reader import WrongYaml, read_value
from cosmos_worker.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model class that a field holds, also behind ``| None``."""
    candidates: tuple[Any, ...] = (field.annotation,)
    if typing.get_origin(field.annotation) in (typing.Union, types.UnionType):
        candidates = typing.get_args(field.annotation)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key.sub path of a document type that holds a value."""
    keys = []
    for name, field in model.model_fields.items():
        nested = nested_model(field)
        keys += [prefix + name] if nested is None else all_keys(nested, f"{prefix}{name}.")
    return keys


def _nearest(path: str, keys: Sequence[str]) -> str:
    """The key that a wrong path most likely means: one that it abbreviates, otherwise the most similar one."""
    for key in keys:
        words = key.rpartition(".")[2].split("_")
        initials = "".join(word[:1] for word in words)
        if len(words) > 1 and path in (initials, f"{key.rpartition('.')[0]}.{initials}"):
            return key
    return difflib.get_close_matches(path, keys, n=1, cutoff=0.0)[0]


def _check_path(model: type[BaseModel], path: str, override: str) -> None:
    current: type[BaseModel] | None = model
    for part in path.split("."):
        if current is None or part not in current.model_fields:
            if moved := moved_option(path):
                raise ConfigError(
                    f"override {shortened(override)!r}: {path} is no option any more; {moved}"
                )
            near = _nearest(path, all_keys(model))
            allowed = ", ".join(current.model_fields) if current else "nothing below a value"
            raise ConfigError(
                f"override {shortened(override)!r}: unknown key {part!r} in {path!r}; did you mean {near!r}? "
                f"allowed here: {allowed}"
            )
        current = nested_model(current.model_fields[part])


def parse_override(override: str) -> tuple[str, Any]:
    """Split ``key.sub=value``; the value is YAML as in the file of a job, so 1e-4 and [1, 2] and null work.

    Raises:
        ConfigError: no '=', too long, or not YAML.
    """
    if len(override) > MAX_TEXT:
        raise ConfigError(
            f"override {shortened(override)!r}: has {len(override)} characters; at most {MAX_TEXT} are read"
        )
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"override {shortened(override)!r}: expected key.sub=value")
    try:
        return path, read_value(text)
    except WrongYaml as error:
        raise ConfigError(
            f"override {shortened(override)!r}: {shortened(text)!r} is not a YAML value ({error})"
        ) from None


def apply_overrides(document: M, overrides: Sequence[str]) -> M:
    """A copy of the document with the overrides applied and everything checked again.

    Raises:
        ConfigError: unknown path (with the nearest one), or a value that is not allowed.
    """
    values = document.model_dump(mode="python")
    for override in overrides:
        path, value = parse_override(override)
        _check_path(type(document), path, override)
        *parents, last = path.split(".")
        target = values
        for number, part in enumerate(parents, start=1):
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
            if not isinstance(target, dict):  # an override before it gives a single value
                raise ConfigError(
                    f"override {shortened(override)!r}: {'.'.join(parents[:number])} is set to the value "
                    f"{shortened(str(target))!r} by another override, so that it has no {last!r}; remove one of them"
                )
        target[last] = value
    try:
        return type(document).model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, "overrides")) from None


def load_stage_config(stage: str, path: Path, overrides: Sequence[str]) -> StageConfig:
    """Read and validate a stage document, with ``key.sub=value`` overrides applied.

    Raises:
        ConfigError: missing file, not a mapping, values that are not allowed (all problems at once), or an override of
            what the checkpoint decides.
    """
    document = load_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping, got {type(document).__name__}")
    values = without_version(document, str(path))
    hints = path.with_name(HINTS_FILE)
    if hints.is_file():
        values = with_hints(stage, values, load_yaml(hints) or {})
    values = document_of_today(stage, values)
    config = parse_document(STAGE_CONFIGS[stage], values, str(path))
    changed = apply_overrides(config, overrides)
    if isinstance(config, TrainConfig) and isinstance(changed, TrainConfig):
        check_changes(config.experiment, changed.experiment)
    return changed
