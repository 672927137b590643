"""Structural schemas of custom resources: pruning, defaults, validation and CEL rules, with the real server's texts."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator
from typing import Any

import celpy
from celpy.adapter import json_to_cel
from celpy.evaluation import CELEvalError

from support.fakekube.errors import Problem, quoted

Node = dict[str, Any]
KEEP = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
RULES = "x-kubernetes-validations"
ROOT_FIELDS = {"apiVersion", "kind", "metadata"}
BLOCKING = ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany",
            "FieldValueTypeInvalid")  # fmt: skip
UNCHECKED: Problem = (
    "FieldValueInvalid",
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
DATE_TIME = re.compile(r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$")


class Schema:
    """The openAPIV3Schema of one version of a custom resource."""

    def __init__(self, root: Node) -> None:
        self.root = root

    def prune(self, value: dict[str, Any]) -> list[str]:
        """Remove fields that the schema does not know; returns their paths."""
        return list(_prune(value, self.root, "", ROOT_FIELDS))

    def fill(self, value: dict[str, Any]) -> None:
        """Put defaults in place."""
        _fill(value, self.root)

    def drop_nulls(self, value: dict[str, Any]) -> None:
        """Remove nulls of fields that have no default (all requests but apply)."""
        _drop_nulls(value, self.root)

    def problems(
        self, value: dict[str, Any], old: dict[str, Any] | None, part: str = ""
    ) -> list[Problem]:
        """Everything wrong with an object, given what it was before; ``part`` = status is checked by itself."""
        node = self.root
        if part:
            inner = node.get("properties", {}).get(part)
            known = inner is not None and part in value
            found = list(_check(value.get(part), inner, "", part)) if known else []
        else:
            found = list(_check(value, node, "", ""))
        found += _duplicates(value, node, "")
        if any(problem[0] in BLOCKING for problem in found):
            return [*found, UNCHECKED]
        return [*found, *_check_rules(value, old, self.root, "", old is not None)]


def _children(value: Any, node: Node) -> Iterator[tuple[Any, Any, Node]]:
    """(key or index, value, schema) of everything below a value that the schema knows."""
    if isinstance(value, dict):
        properties, more = node.get("properties", {}), node.get("additionalProperties")
        for key, inner in value.items():
            if key in properties:
                yield key, inner, properties[key]
            elif isinstance(more, dict):
                yield key, inner, more
    elif isinstance(value, list) and "items" in node:
        for index, inner in enumerate(value):
            yield index, inner, node["items"]


def _below(path: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}".lstrip(".")


# --- pruning and defaults --------------------------------------------------------------------


def _prune(value: Any, node: Node, path: str, always: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    if isinstance(value, dict) and not node.get(KEEP) and node.get("type") == "object":
        properties = node.get("properties", {})
        if not isinstance(node.get("additionalProperties"), dict):
            for key in [key for key in value if key not in properties and key not in always]:
                del value[key]
                yield f"{path}.{key}".lstrip(".")
    for key, inner, schema in _children(value, node):
        if not (always and key == "metadata"):
            yield from _prune(inner, schema, _below(path, key))


def _drop_nulls(value: Any, node: Node) -> None:
    if isinstance(value, dict):
        for key, schema in node.get("properties", {}).items():
            has_use = schema.get("nullable") or "default" in schema
            if key in value and value[key] is None and not has_use:
                del value[key]
    for _, inner, schema in _children(value, node):
        _drop_nulls(inner, schema)


def _fill(value: Any, node: Node) -> None:
    if isinstance(value, dict):
        for key, schema in node.get("properties", {}).items():
            if "default" in schema and (
                key not in value or (value[key] is None and not schema.get("nullable"))
            ):
                value[key] = copy.deepcopy(schema["default"])
    for _, inner, schema in _children(value, node):
        _fill(inner, schema)


# --- values ----------------------------------------------------------------------------------


def _type_of(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else kinds.get(type(value), "object")


def _has_type(value: Any, node: Node) -> bool:
    wanted, got = node.get("type"), _type_of(value)
    if value is None:
        return bool(node.get("nullable"))
    if node.get(INT_OR_STRING):
        return got in ("integer", "string")
    if wanted == "integer" and got == "number":
        return bool(value == int(value))
    return wanted is None or got == wanted or (wanted == "number" and got == "integer")


def _check(value: Any, node: Node, path: str, root: str) -> Iterator[Problem]:
    """Problems of a value; the field is ``root.path``, but messages speak of ``path``."""
    where = f"{root}.{path}".strip(".")
    if not _has_type(value, node):
        wanted, got = node.get("type") or "integer,string", _type_of(value)
        text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
        yield "FieldValueTypeInvalid", where, text
        return
    if value is None:
        return
    for kind, text in _bounds(value, node, path):
        yield kind, where, text
    if isinstance(value, dict):
        for key in node.get("required", ()):
            if key not in value:
                yield "FieldValueRequired", f"{where}.{key}".lstrip("."), "Required value"
    for key, inner, schema in _children(value, node):
        yield from _check(inner, schema, _below(path, key), root)


def _bounds(value: Any, node: Node, path: str) -> Iterator[tuple[str, str]]:
    if "enum" in node and value not in node["enum"]:
        allowed = ", ".join(f'"{choice}"' for choice in node["enum"])
        text = f"Unsupported value: {quoted(value)}: supported values: {allowed}"
        yield "FieldValueNotSupported", text
    if isinstance(value, str):
        yield from _text_bounds(value, node, path)
    elif isinstance(value, list | dict):
        yield from _size_bounds(value, node, path)
    elif not isinstance(value, bool):
        for text in _number_problems(value, node):
            yield "FieldValueInvalid", f"Invalid value: {quoted(value)}: {path} in body {text}"


def _text_bounds(value: str, node: Node, path: str) -> Iterator[tuple[str, str]]:
    start = f"Invalid value: {quoted(value)}: {path} in body"
    longest = node.get("maxLength")
    if longest is not None and len(value) > longest:
        unit = "byte" if longest == 1 else "bytes"
        yield "FieldValueTooLong", f"Too long: may not be more than {longest} {unit}"
    if len(value) < node.get("minLength", 0):
        text = f"should be at least {node['minLength']} chars long"
        yield "FieldValueInvalid", f"{start} {text}"
    if "pattern" in node and not re.search(_whole(node["pattern"]), value):
        yield "FieldValueInvalid", f"{start} should match '{node['pattern']}'"
    if node.get("format") == "date-time" and not DATE_TIME.match(value):
        yield "FieldValueInvalid", f"{start} must be of type date-time: {quoted(value)}"


def _whole(pattern: str) -> str:
    """A pattern whose final $ is the end of the text, not of a line."""
    return pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern


def _size_bounds(
    value: list[Any] | dict[str, Any], node: Node, path: str
) -> Iterator[tuple[str, str]]:
    most = node.get("maxItems" if isinstance(value, list) else "maxProperties")
    if most is not None and len(value) > most:
        unit = "item" if most == 1 else "items"
        yield "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} {unit}"
    if isinstance(value, list) and len(value) < node.get("minItems", 0):
        text = f"should have at least {node['minItems']} items"
        yield "FieldValueInvalid", f"Invalid value: {len(value)}: {path} in body {text}"


def _number_problems(value: float, node: Node) -> Iterator[str]:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None:
        if node.get("exclusiveMinimum") and value <= low:
            yield f"should be greater than {low:g}"
        elif value < low:
            yield f"should be greater than or equal to {low:g}"
    if high is not None:
        if node.get("exclusiveMaximum") and value >= high:
            yield f"should be less than {high:g}"
        elif value > high:
            yield f"should be less than or equal to {high:g}"
    if "multipleOf" in node and value % node["multipleOf"]:
        yield f"should be a multiple of {node['multipleOf']:g}"


def _duplicates(value: Any, node: Node, path: str) -> Iterator[Problem]:
    kind = node.get("x-kubernetes-list-type")
    if isinstance(value, list) and kind in ("map", "set"):
        names = node.get("x-kubernetes-list-map-keys", ())
        seen: list[Any] = []
        for index, item in enumerate(value):
            if kind == "map" and not isinstance(item, dict):
                continue  # of the wrong type, which is told elsewhere
            key = {name: item.get(name) for name in names} if kind == "map" else item
            if key in seen:
                text = f"Duplicate value: {quoted(key)}"
                yield "FieldValueDuplicate", f"{path}[{index}]", text
            seen.append(key)
    for key, inner, schema in _children(value, node):
        yield from _duplicates(inner, schema, _below(path, key))


# --- rules -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=512)
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _holds(rule: str, value: Any, old: Any) -> str:
    """Empty if a rule holds, else why not."""
    names = {"self": json_to_cel(value)}
    if old is not None:
        names["oldSelf"] = json_to_cel(old)
    try:
        return "" if _program(rule).evaluate(names) else f"failed rule: {rule}"
    except CELEvalError as error:
        return f"{error.args[0]} evaluating rule: {rule}"


def _check_rules(value: Any, old: Any, node: Node, path: str, related: bool) -> Iterator[Problem]:
    """Problems of CEL rules, also those that compare with the object before; what did not change is let through."""
    if related and value == old:
        return
    for rule in node.get(RULES, ()):
        if "oldSelf" in rule["rule"] and not related:
            continue
        problem = _holds(rule["rule"], value, old if related else None)
        if problem:
            text = rule.get("message", problem)
            is_whole = node.get("type") in ("object", "array")
            shown = "Invalid value" if is_whole else f"Invalid value: {quoted(value)}"
            yield "FieldValueInvalid", path or "<nil>", f"{shown}: {text}"
    for key, inner, schema in _children(value, node):
        before, has_before = _before(key, inner, old, node) if related else (None, False)
        yield from _check_rules(inner, before, schema, _below(path, key), has_before)


def _before(key: Any, value: Any, old: Any, node: Node) -> tuple[Any, bool]:
    """What a field or an item of a list-map was before, and whether there was one."""
    if isinstance(key, str):
        return (old[key], True) if isinstance(old, dict) and key in old else (None, False)
    names = node.get("x-kubernetes-list-map-keys")
    if not names or not isinstance(old, list):
        return None, False
    same = [item for item in old if all(item.get(n) == value.get(n) for n in names)]
    return (same[0], True) if same else (None, False)
