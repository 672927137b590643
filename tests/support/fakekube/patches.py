"""JSON merge patch, strategic merge patch, JSON patch."""

from __future__ import annotations

import copy
from typing import Any

from support.fakekube.errors import ApiError
from support.fakekube.shapes import Shape, key_of


def merge_patch(value: Any, patch: Any) -> Any:
    """RFC 7386: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), inner)
    return result


def strategic_patch(value: Any, patch: Any, shape: Shape) -> Any:
    """The same, but lists with merge keys merge by them."""
    if isinstance(patch, dict):
        if patch.get("$patch") == "replace":
            return {name: inner for name, inner in patch.items() if name != "$patch"}
        result = dict(value) if isinstance(value, dict) else {}
        for name, inner in patch.items():
            if name.startswith("$deleteFromPrimitiveList/"):
                field = name.partition("/")[2]
                result[field] = [item for item in result.get(field, []) if item not in inner]
            elif inner is None:
                result.pop(name, None)
            elif not name.startswith("$"):
                result[name] = strategic_patch(result.get(name), inner, shape.child(name))
        return result
    if isinstance(patch, list) and isinstance(value, list) and shape.keys:
        return _merge_items(value, patch, shape)
    if isinstance(patch, list) and isinstance(value, list) and shape.is_set:
        return value + [item for item in patch if item not in value]
    return copy.deepcopy(patch)


def _merge_items(value: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    result = list(value)
    for item in patch:
        key = key_of(item, shape.keys)
        places = [i for i, old in enumerate(result) if key_of(old, shape.keys) == key]
        if item.get("$patch") == "delete":
            result = [old for i, old in enumerate(result) if i not in places]
        elif places:
            result[places[0]] = strategic_patch(result[places[0]], item, shape.item())
        else:
            result.append(copy.deepcopy(item))
    return result


def json_patch(value: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902."""
    document = {"": copy.deepcopy(value)}
    for operation in operations:
        try:
            _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            text = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", text) from None
    return document[""]


def _operate(document: Any, operation: dict[str, Any]) -> None:
    name, path = operation["op"], operation["path"]
    if name in ("move", "copy"):
        moved = copy.deepcopy(_look(document, operation["from"]))
        if name == "move":
            _operate(document, {"op": "remove", "path": operation["from"]})
        name, operation = "add", {"value": moved}
    parent, _, last = path.rpartition("/")
    target, last = _look(document, parent), _parts(last)[0]
    if name == "test":
        if _look(document, path) != operation["value"]:
            raise ValueError(f"testing value {path} failed")
    elif name in ("remove", "replace"):
        del target[int(last) if isinstance(target, list) else last]
    if name in ("add", "replace") and isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), operation["value"])
    elif name in ("add", "replace"):
        target[last] = operation["value"]
    elif name not in ("test", "remove"):
        raise ValueError(name)


def _parts(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def _look(document: Any, path: str) -> Any:
    for part in _parts(path):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document
