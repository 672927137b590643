"""The schema that the API server has of our resource, which may be of another version than this program. Pure.

An older CustomResourceDefinition lacks fields, and words in its sets. The API server refuses a whole status for one of
them, so what it lacks is left out of the status that is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_NOTHING = object()
"""Stands for a value that the schema does not admit."""


def lacking(served: Schema, own: Schema, path: str) -> Iterator[str]:
    """The parts of our schema that the API server's lacks.

    Args:
        served: schema of the API server.
        own: the same schema in the CustomResourceDefinition of this version.
        path: path of both, such as ``status``.

    Yields:
        Paths of fields, such as ``status.attempts.node``, and words as ``status.state=Queued``.
    """
    if "enum" in served:
        for word in own.get("enum", ()):
            if word not in served["enum"]:
                yield f"{path}={word}"
        if "enum" not in own:
            yield f"{path} (any word)"
    for part in ("items", "additionalProperties"):
        if isinstance(own.get(part), Mapping) and isinstance(served.get(part), Mapping):
            yield from lacking(served[part], own[part], path)
    known = served.get("properties")
    if known is None:  # an object whose fields nobody checks
        return
    for name, field in own.get("properties", {}).items():
        if name in known:
            yield from lacking(known[name], field, f"{path}.{name}")
        else:
            yield f"{path}.{name}"


def fit(value: Any, served: Schema) -> Any:  # noqa: ANN401 - JSON
    """A value without what the API server's schema lacks.

    Args:
        value: a JSON object, such as a status.
        served: the API server's schema of it.

    Returns:
        The value itself where nothing is lacking. A word that its set lacks is left out; if the field is required, so
        is the item of the list that holds it.
    """
    fitted = _fitted(value, served)
    return {} if fitted is _NOTHING else fitted


def _fitted(value: Any, served: Schema) -> Any:  # noqa: ANN401 - JSON
    if "enum" in served and value not in served["enum"]:
        return _NOTHING
    if isinstance(value, Mapping):
        return _fitted_object(value, served)
    if isinstance(value, list) and isinstance(served.get("items"), Mapping):
        items = [_fitted(item, served["items"]) for item in value]
        return [item for item in items if item is not _NOTHING]
    return value


def _fitted_object(value: Mapping[str, Any], served: Schema) -> Any:  # noqa: ANN401 - JSON
    known, others = served.get("properties"), served.get("additionalProperties")
    if known is None:
        if not isinstance(others, Mapping):
            return value
        fitted = {name: _fitted(field, others) for name, field in value.items()}
    else:
        fitted = {
            name: _fitted(field, known[name]) for name, field in value.items() if name in known
        }
    kept = {name: field for name, field in fitted.items() if field is not _NOTHING}
    required = set(served.get("required", ()))
    return _NOTHING if required & (set(value) - set(kept)) else kept
