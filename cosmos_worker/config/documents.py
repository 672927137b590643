"""Typed documents from YAML; every problem is told at once, one line each. No torch here."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from cosmos_worker.config.addresses import without_secrets
from cosmos_worker.config.choices import FOLDER_PATTERN, PATH_PATTERN
from cosmos_worker.config.moved_options import moved_option
from cosmos_worker.config.source import PATH_OF_NAMES, REPOSITORY_PATTERN, REVISION_PATTERN
from cosmos_worker.config.values import (
    shortened,
    shown_value,
)
from cosmos_worker.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
PATTERN_WORDS = {
    PATH_PATTERN: "has a control character, such as a line break, which no path has here",
    FOLDER_PATTERN: "is not the name of one folder; use letters, digits and ._-, beginning with a letter or a digit",
    PATH_OF_NAMES: "is no repository of the Hugging Face Hub; use OWNER/NAME",
    REPOSITORY_PATTERN: "is no repository of the Hugging Face Hub; use OWNER/NAME",
    REVISION_PATTERN: "is no revision; use the name of a branch or a tag, or a commit",
}
"""Pattern of a text → what one that does not match it is told."""
MAX_DOCUMENT_BYTES = 1 << 26
"""Largest document of a stage; thousands of prompts take a few MiB."""


def describe_errors(error: ValidationError, where: str) -> str:
    """All problems of a document, one line each: where.path: what (got VALUE)."""
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        got = problem.get("input")
        got = without_secrets(shortened(got)) if isinstance(got, str) else got
        shown = (
            f" (got {shown_value(got)})"
            if isinstance(got, str | int | float | bool) or got is None
            else ""
        )
        pattern = str(problem.get("ctx", {}).get("pattern"))
        message = PATTERN_WORDS.get(pattern, problem["msg"].removeprefix("Value error, "))
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
        ConfigError: no such file, no plain one, too large, or not YAML.
    """
    try:
        return yaml.load(read_small_text(path, MAX_DOCUMENT_BYTES), _DocumentLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # numbers, dates and levels that Python does not have
        text = shortened(" ".join(str(error).split()))
        raise ConfigError(f"{path}: not YAML: {text}") from None


def read_small_text(path: Path, max_bytes: int) -> str:
    """The text of a file in UTF-8, if it is a plain file of a sensible size: pipes and devices have no end.

    Raises:
        ConfigError: no such file, another kind of file, too large, not readable, or no text.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{path}: is a folder; give a plain file")
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: is a pipe or a device; give a plain file")
        if status.st_size > max_bytes:
            raise ConfigError(
                f"{path}: has {status.st_size} bytes; a document has at most {max_bytes >> 20} MiB"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not YAML: no text in UTF-8 ({error})") from None
    except (OSError, ValueError) as error:  # a name that is too long, or with a zero byte
        raise ConfigError(f"{str(path)!r}: cannot be read: {error}; check the path") from None


# a base that is chosen at run time; the one of C is faster
class _DocumentLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads the documents that :func:`yaml.safe_dump` writes: all of YAML but merges, which multiply."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse ``<<``."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    "merges another mapping (<<); write the values themselves",
                    key.start_mark,
                )
