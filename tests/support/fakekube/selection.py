"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from support.fakekube.errors import bad_request

Object = dict[str, Any]
Test = Callable[[Object], bool]
SET = re.compile(r"^(?P<key>\S+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)$")
COMMA = re.compile(r",(?![^(]*\))")
FIELDS = {
    "metadata.name", "metadata.namespace", "spec.nodeName", "status.phase", "reason", "type",
    "involvedObject.name", "involvedObject.kind", "involvedObject.namespace", "involvedObject.uid",
}  # fmt: skip


def parse_labels(text: str) -> Test:
    """A labelSelector such as ``a=b,c!=d,e,!f,g in (h,i)``."""
    tests = [_label_test(part.strip()) for part in COMMA.split(text) if part.strip()]
    return lambda obj: all(test(obj.get("metadata", {}).get("labels") or {}) for test in tests)


def _label_test(part: str) -> Test:
    if match := SET.match(part):
        values = {value.strip() for value in match["values"].split(",")}
        key, wanted = match["key"], match["how"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    if "!=" in part:
        key, value = (side.strip() for side in part.split("!=", 1))
        return lambda labels: labels.get(key) != value
    if "=" in part:
        key, value = (side.strip() for side in part.replace("==", "=").split("=", 1))
        return lambda labels: labels.get(key) == value
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    return lambda labels: part in labels


def matches(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    """True if labels satisfy a selector."""
    return all(labels.get(key) == value for key, value in wanted.items())


def parse_fields(text: str) -> Test:
    """A fieldSelector such as ``metadata.name=a,status.phase!=Running``."""
    tests = [_field_test(part) for part in text.split(",") if part]
    return lambda obj: all(test(obj) for test in tests)


def _field_test(part: str) -> Test:
    wanted = "!=" not in part
    path, value = part.split("!=" if not wanted else "=", 1)
    value = value.lstrip("=")
    if path not in FIELDS:
        raise bad_request(f"field label not supported: {path}")

    def test(obj: Object) -> bool:
        found: Any = obj
        for name in path.split("."):
            found = (found or {}).get(name)
        return ((found or "") == value) == wanted

    return test
