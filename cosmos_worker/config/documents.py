"""Typed documents from YAML; every problem is told at once, one line each. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from cosmos_worker.config.addresses import without_secrets
from cosmos_worker.config.moved_options import moved_option
from cosmos_worker.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def describe_errors(error: ValidationError, where: str) -> str:
    """All problems of a document, one line each: where.path: what (got VALUE)."""
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        got = problem.get("input")
        got = without_secrets(got) if isinstance(got, str) else got
        shown = (
            f" (got {got!r})" if isinstance(got, str | int | float | bool) or got is None else ""
        )
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden" and (moved := moved_option(path)):
            message = f"is no option any more; {moved}"
        lines.append(f"{where}{'.' + path if path else ''}: {message}{shown}")
    return "\n".join(lines)


def parse_document(model: type[M], document: Any, where: str) -> M:  # noqa: ANN401 - any YAML value
    """Validate a YAML value.

    Raises:
        ConfigError: with every problem, one line each.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ConfigError(describe_errors(error, where)) from None


def load_yaml(path: Path) -> Any:  # noqa: ANN401 - any YAML value
    """Read a YAML file.

    Raises:
        ConfigError: missing file or not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
