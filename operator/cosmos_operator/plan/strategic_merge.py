"""Strategic merge of pod templates, as the API server merges a ``strategic-merge-patch``. Pure.

Maps are merged, ``null`` removes a field, lists of elements with a merge key (``containers`` by name, ``volumeMounts``
by mountPath, ...) are merged element by element, and other lists, such as tolerations, are replaced as a whole.
``$patch: delete`` in an element removes it; ``$patch: replace`` in a map or as an element replaces the whole.

No package for this exists. Tests compare the results with those of a real API server. One thing is different: there
``$patch: replace`` of a field that does not exist yet loses its value; here it gives the field that value.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from cosmos_operator.api.pod_schema import TEMPLATE, FieldType, fields_of

PATCH = "$patch"
"""Key of a directive, whose value is ``replace`` or ``delete``."""
Object = dict[str, Any]


def merge(original: Object, patch: Object, kind: str = TEMPLATE) -> Object:
    """A new object: ``original`` with the changes of ``patch``.

    Args:
        original: an object of Kubernetes.
        patch: part of such an object, with values to set, ``null`` for fields to remove, and directives.
        kind: the name of their type, such as PodTemplateSpec or PodSpec.
    """
    return _merge_map(copy.deepcopy(original), copy.deepcopy(patch), kind)


def _merge_map(original: Object, patch: Object, kind: str) -> Object:
    directive = patch.get(PATCH)
    if directive == "delete":
        return {}
    if directive == "replace":
        replaced: Object = _without_directives(patch)
        return replaced
    types = fields_of(kind) or {}
    for name, value in patch.items():
        if value is None:
            original.pop(name, None)
            continue
        original[name] = _merge_value(original.get(name), value, types.get(name, FieldType("")))
    return original


def _merge_value(found: Any, value: Any, type_: FieldType) -> Any:  # noqa: ANN401 - values of YAML
    if isinstance(found, dict) and isinstance(value, dict):
        return _merge_map(found, value, type_.kind if type_.shape == "one" else "")
    if isinstance(found, list) and isinstance(value, list) and type_.merge_key:
        return _merge_list(found, value, type_)
    return _without_directives(value)


def _without_directives(value: Any) -> Any:  # noqa: ANN401 - values of YAML
    """A value for a field that had none: elements to delete, directives and nulls are left out."""
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if inner is not None and name != PATCH}
        return {name: _without_directives(inner) for name, inner in kept.items()}
    if isinstance(value, list):
        return [_without_directives(one) for one in value if not _is_directive(one)]
    return value


def _is_directive(element: Any) -> bool:  # noqa: ANN401 - values of YAML
    return isinstance(element, dict) and PATCH in element


def _merge_list(original: list[Any], patch: list[Any], type_: FieldType) -> list[Any]:
    key = type_.merge_key
    if key == "*":
        merged = list(dict.fromkeys([*original, *patch]))
        return _in_order(merged, original, patch)
    values = [one for one in patch if not _is_directive(one)]
    directives = [one for one in patch if _is_directive(one)]
    deleted = [one.get(key) for one in directives if one[PATCH] == "delete"]
    kept = [one for one in original if one.get(key) not in deleted]
    if any(one[PATCH] == "replace" for one in directives):
        kept = []
    merged_by_key: dict[Any, Object] = {one.get(key): one for one in kept}
    for one in values:
        found = merged_by_key.get(one.get(key), {})
        merged_by_key[one.get(key)] = _merge_map(found, one, type_.kind)
    order = _in_order(
        list(merged_by_key), [one.get(key) for one in kept], [one.get(key) for one in values]
    )
    return [merged_by_key[name] for name in order]


def _in_order(merged: Sequence[Any], original: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """Elements in the order of the API server: those of the patch in its order, the others between them.

    An element that the patch does not name comes before one of the patch only where it was before it.
    """
    rest = [one for one in original if one in merged and one not in patch]
    result: list[Any] = []
    for one in dict.fromkeys(patch):
        while rest and one in original and original.index(rest[0]) < original.index(one):
            result.append(rest.pop(0))
        result.append(one)
    return result + rest
