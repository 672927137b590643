"""The fields of Kubernetes' pod templates: their types, and how a strategic merge treats their lists.

The table ``pod_schema.json`` is what the API server of Kubernetes 1.36 says in its OpenAPI document; a test compares
them. Types are ``string``, ``quantity``, ``EnvVar`` and so on; ``[name]EnvVar`` is a list that is merged by the field
``name`` of its elements, ``[*]string`` one of scalars that is merged as a set, ``[]Toleration`` one that is replaced as
a whole, and ``{}string`` a map with any names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

TEMPLATE, POD, CONTAINER = "PodTemplateSpec", "PodSpec", "Container"
"""Names of Kubernetes' objects in the table."""


@dataclass(frozen=True)
class FieldType:
    """The type of a field."""

    kind: str
    """Scalar or object, of the field itself or of what its list or map holds."""
    shape: Literal["one", "list", "map"] = "one"
    merge_key: str = ""
    """Field by which a merge identifies the elements of a list; ``*`` = scalars, merged as a set; empty = the list is
    replaced as a whole."""


@cache
def _table() -> dict[str, dict[str, str]]:
    text = files("cosmos_operator.api").joinpath("pod_schema.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
    return table


@cache
def fields_of(kind: str) -> Mapping[str, FieldType] | None:
    """Fields of a kind of object → their types; None if it is no object with fields of its own."""
    fields = _table().get(kind)
    return None if fields is None else {name: _parse(text) for name, text in fields.items()}


def _parse(text: str) -> FieldType:
    if text.startswith("{}"):
        return FieldType(text[2:], "map")
    if match := re.match(r"\[(.*?)\](.*)", text):
        return FieldType(match[2], "list", match[1])
    return FieldType(text)
