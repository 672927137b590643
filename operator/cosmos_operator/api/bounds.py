"""Bounds on the size of a whole job, which are checked before anything copies it: aliases of YAML repeat at no cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosmos_operator.api.pod_template import check_size
from cosmos_operator.errors import InvalidSpec

MAX_VALUES = 200_000
"""Values that a job may have; the API server's limit of 1.5 MiB has room for fewer."""
MAX_DEPTH = 64
"""Levels of a job."""
TEMPLATE = "podTemplate"
"""Name of fields with limits of their own."""


def check_bounds(document: Mapping[Any, Any]) -> None:
    """Refuse a job that is too large or too deep, or has names that are no texts, without going through all of it.

    Raises:
        InvalidSpec: what is wrong, and where.
    """
    waiting: list[tuple[Any, str, int]] = [(document, "", 1)]
    num_values = 0
    while waiting:
        value, path, depth = waiting.pop()
        num_values += 1
        if num_values > MAX_VALUES:
            raise InvalidSpec([f"job: has more than {MAX_VALUES} values; make it smaller"])
        if depth > MAX_DEPTH:
            raise InvalidSpec([f"{path}: is deeper than {MAX_DEPTH} levels; no job is"])
        if isinstance(value, Mapping):
            for name, inner in value.items():
                here = f"{path}.{name}" if path else str(name)
                _check_name(name, inner, path, here)
                waiting.append((inner, here, depth + 1))
        elif isinstance(value, list | tuple):
            waiting += [(inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(value)]


def _check_name(name: Any, value: Any, path: str, here: str) -> None:  # noqa: ANN401 - any YAML value
    if not isinstance(name, str):
        raise InvalidSpec([f"{path or 'job'}: the name {name!r} is no text; quote it"])
    if name == TEMPLATE:
        try:
            check_size(value)
        except ValueError as error:
            raise InvalidSpec([f"{here}: {error}"]) from None
