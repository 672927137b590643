"""Is a value a part of a pod that Kubernetes knows? Names and types of all fields, and directives of merges. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from cosmos_operator.api.pod_schema import FieldType, fields_of

PATCH = "$patch"
QUANTITY = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+|m|n|u|[kMGTPE]|[KMGTPE]i)?")
SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a text; quote numbers and true or false"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "quantity": ((str, int, float), "a quantity such as 500m or 64Gi"),
    "int-or-string": ((int, str), "a whole number or a text"),
}
"""Name of a scalar type → its types in Python, and what people are told to give."""


def shape_problems(value: Any, kind: str, where: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Fields of an object that Kubernetes does not know, and values of another type, one line each.

    Args:
        value: a part of an object, which may be incomplete.
        kind: name of the object in Kubernetes, such as PodSpec.
        where: path of the value in the job.
    """
    if not isinstance(value, dict):
        yield f"{where}: got {_told(value)}; give the fields of {kind}"
        return
    fields = fields_of(kind) or {}
    for name, inner in value.items():
        here = f"{where}.{name}"
        if name == PATCH:
            if inner not in ("replace", "delete"):
                yield f"{here}: got {inner!r}; $patch is replace or delete"
        elif str(name).startswith("$"):
            yield f"{here}: of the directives of a strategic merge only $patch is known here"
        elif name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1, cutoff=0.0)
            yield (
                f"{where}: unknown field {name!r}; did you mean {near[0]!r}? fields of {kind}: "
                f"{', '.join(fields)}"
            )
        elif inner is not None:
            yield from _field_problems(inner, fields[name], here)


def _field_problems(value: Any, type_: FieldType, where: str) -> Iterator[str]:  # noqa: ANN401
    if type_.shape == "list":
        yield from _list_problems(value, type_, where)
    elif type_.shape == "map":
        if not isinstance(value, dict):
            yield f"{where}: got {_told(value)}; give names with values"
            return
        for name, inner in value.items():
            if not isinstance(name, str):
                yield f"{where}: the name {name!r} is no text; quote it"
            elif inner is not None and name != PATCH:
                yield from _value_problems(inner, type_.kind, f"{where}[{name}]")
    else:
        yield from _value_problems(value, type_.kind, where)


def _list_problems(value: Any, type_: FieldType, where: str) -> Iterator[str]:  # noqa: ANN401
    if not isinstance(value, list | tuple):
        yield f"{where}: got {_told(value)}; give a list"
        return
    key, seen = type_.merge_key, set()
    for number, one in enumerate(value):
        here = f"{where}[{number}]"
        yield from _value_problems(one, type_.kind, here)
        if not isinstance(one, dict) or key == "*":
            continue
        if problem := _directive_problem(one, key):
            yield f"{here}.{PATCH}: {problem}"
        if not key or one.get(PATCH) == "replace":
            continue
        name = one.get(key)
        if name is None:
            yield f"{here}.{key}: missing; elements of this list are merged by it"
        elif (repr(name), PATCH in one) in seen:
            yield f"{here}.{key}: {name!r} is there twice; elements of this list are merged by it"
        seen.add((repr(name), PATCH in one))


def _directive_problem(element: dict[str, Any], key: str) -> str:
    """The problem of a directive in an element of a list; empty if it has none, or there is no directive."""
    if PATCH not in element:
        return ""
    if not key:
        return "this list is replaced as a whole; give all of its elements, without $patch"
    if element[PATCH] == "replace" and len(element) > 1:
        return "an element with $patch: replace stands alone, before the new elements of the list"
    return ""


def _value_problems(value: Any, kind: str, where: str) -> Iterator[str]:  # noqa: ANN401 - JSON
    if kind not in SCALARS:
        if fields_of(kind) is not None:
            yield from shape_problems(value, kind, where)
        return
    types, wanted = SCALARS[kind]
    is_flag = isinstance(value, bool) and bool not in types
    if not isinstance(value, types) or is_flag:
        yield f"{where}: got {_told(value)}; give {wanted}"
    elif kind == "quantity" and not QUANTITY.fullmatch(str(value)):
        yield f"{where}: got {value!r}; give {wanted}"


def _told(value: Any) -> str:  # noqa: ANN401 - JSON
    """A value in a message."""
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    return repr(value)
