"""Every limit of a structural schema, each with a value that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]


Path = tuple[str | int, ...]
Limit = tuple[Path, str, Any]
"""Path of a field, the keyword of its limit, and a value that the limit does not admit."""

WRONG_TYPE = {"string": 7, "integer": "x", "number": "x", "boolean": "x", "array": "x", "object": "x"}  # fmt: skip


def find_limits(schema: Schema, path: Path = ()) -> Iterator[Limit]:
    """All limits below a schema."""
    yield from ((path, keyword, value) for keyword, value in _broken(schema))
    for name, child in schema.get("properties", {}).items():
        yield from find_limits(child, (*path, name))
    if "items" in schema:
        yield from find_limits(schema["items"], (*path, 0))
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        yield from find_limits(values, (*path, "some"))


BREAKERS: dict[str, Callable[[Schema], Any]] = {
    "type": lambda schema: WRONG_TYPE[schema["type"]],
    "enum": lambda schema: "Nonsense" if schema["type"] == "string" else 9999,
    "maximum": lambda schema: schema["maximum"] + (0 if schema.get("exclusiveMaximum") else 1),
    "minimum": lambda schema: schema["minimum"] - (0 if schema.get("exclusiveMinimum") else 1),
    "maxLength": lambda schema: "a" * (schema["maxLength"] + 1),
    "minLength": lambda schema: "",
    "pattern": lambda schema: "?!\x01",
    "multipleOf": lambda schema: schema.get("minimum", 0) + 1,
    "maxItems": lambda schema: [
        _example(schema["items"], i) for i in range(schema["maxItems"] + 1)
    ],
    "minItems": lambda schema: [],
    "maxProperties": lambda schema: {f"k{i}": "1" for i in range(schema["maxProperties"] + 1)},
}
"""Keyword of a limit → a value that breaks it."""


def _broken(schema: Schema) -> Iterator[tuple[str, Any]]:
    return (
        (name, breaker(schema))
        for name, breaker in BREAKERS.items()
        if schema.get(name) is not None
    )


def _example(schema: Schema, number: int) -> Any:
    """A value of a schema, another for each number."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if schema.get("type") == "object":
        needed = schema.get("required", ())
        return {name: _example(schema["properties"][name], number) for name in needed}
    return f"a=b{number}" if schema.get("type") == "string" else number


def with_value(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of a document with a value at a path; missing parents are made."""
    result = copy.deepcopy(document)
    target: Any = result
    for part, following in zip(path, (*path[1:], None), strict=True):
        if following is None:
            _put(target, part, value)
        else:
            target = _step(target, part, [] if isinstance(following, int) else {})
    return result


def _put(target: Any, part: str | int, value: Any) -> None:
    if isinstance(part, int):
        target[part:] = [value]
    else:
        target[part] = value


def _step(target: Any, part: str | int, empty: Any) -> Any:
    if isinstance(part, int):
        if not target:
            target.append(empty)
        return target[0]
    if not isinstance(target.get(part), type(empty)):
        target[part] = empty
    return target[part]


def api_path(path: Path) -> str:
    """A path as the API server writes it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".")
