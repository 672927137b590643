"""JSON merge patch, and strategic merge patch as far as owners and pod templates need it."""

from __future__ import annotations

import copy
from typing import Any

MERGE_KEYS = {
    "ownerReferences": "uid",
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
}
"""Lists of built-in kinds that merge item by item, and the field by which their items are told apart."""


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


def strategic_patch(value: Any, patch: Any, field: str = "") -> Any:
    """The same, but the lists of MERGE_KEYS merge; ``field`` is the name of the value's field."""
    if isinstance(patch, list) and isinstance(value, list) and field in MERGE_KEYS:
        return _merge_items(value, patch, MERGE_KEYS[field])
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            result.pop(name, None)
        else:
            result[name] = strategic_patch(result.get(name), inner, name)
    return result


def _merge_items(value: list[Any], patch: list[Any], key: str) -> list[Any]:
    result = list(value)
    for item in patch:
        indices = [i for i, old in enumerate(result) if old.get(key) == item.get(key)]
        if item.get("$patch") == "delete":
            result = [old for i, old in enumerate(result) if i not in indices]
        elif indices:
            result[indices[0]] = strategic_patch(result[indices[0]], item)
        else:
            result.append(copy.deepcopy(item))
    return result
