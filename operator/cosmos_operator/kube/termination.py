"""The words of a worker, its termination message and its log, as facts: whatever they say, no pass may fail of them.

Whoever gives a job an image decides what stands there. So numbers have bounds, texts have neither control characters
nor more than they may, and what is of another type than it should be is not there. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MAX_COUNT = 10**12
"""Largest step or other count that is believed."""
MAX_TEXT = 4096
"""Characters of a text; Kubernetes keeps no more of a termination message."""
MAX_WORD = 128
MAX_NODE = 253
MAX_LINES = 10
MAX_DEPTH = 6
"""Levels of a result."""


@dataclass(frozen=True)
class Said:
    """A termination message."""

    reason: str
    message: str
    step: int | None
    checkpoint: int | None
    node: str
    result: dict[str, Any] | None
    lines: tuple[str, ...]


def shown(text: str, max_length: int = MAX_TEXT) -> str:
    """A text in one line without control characters, so that it can neither forge lines nor control a terminal."""
    safe = (char if char.isprintable() else _escaped(char) for char in text[:max_length])
    return "".join(safe)[:max_length]


def _escaped(char: str) -> str:
    return " " if char.isspace() else char.encode("unicode_escape").decode()


def count_of(value: object) -> int | None:
    """The value if it is a count, otherwise None."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if is_count else None  # type: ignore[return-value]  # mypy does not see the check through


def read_message(text: str) -> Said | None:
    """The facts of a termination message; None if it is none of a worker of this project."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    lines, result = said.get("lines"), _plain(said.get("result"), 0)
    return Said(
        reason=_text(said.get("reason"), MAX_WORD),
        message=_text(said.get("message"), MAX_TEXT),
        step=count_of(said.get("step")),
        checkpoint=count_of(said.get("checkpoint")),
        node=_text(said.get("node"), MAX_NODE),
        result=result if isinstance(result, dict) else None,
        lines=tuple(shown(str(one)) for one in lines[:MAX_LINES])
        if isinstance(lines, list)
        else (),
    )


def _text(value: object, max_length: int) -> str:
    return shown(value, max_length) if isinstance(value, str) else ""


def _plain(value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON values
    """The value with bounds; null for what has none."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return count_of(value)
    if isinstance(value, float):
        return value if abs(value) <= MAX_COUNT else None
    if depth < MAX_DEPTH and isinstance(value, dict):
        return {shown(key, MAX_WORD): _plain(one, depth + 1) for key, one in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list):
        return [_plain(one, depth + 1) for one in value]
    return None
