"""Jobs as a table, with the columns that ``kubectl get`` shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from cosmos_operator.api.crd import ResourceKind
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import seconds_since

STEP = re.compile(r"\.?([A-Za-z]+)|\[(-1:|\*)\]")
"""A step of the paths that our columns have: a field, the last element of a list, all of them."""
GAP = 3
"""Spaces between two columns."""
MINUTE, HOUR, DAY = 60, 3600, 86400


def table(
    resource: ResourceKind,
    jobs: Iterable[Manifest],
    now: datetime,
    *,
    wide: bool = False,
    with_namespace: bool = False,
    with_kind: bool = False,
) -> list[str]:
    """The lines of a table of jobs of one kind.

    Args:
        resource: their kind.
        jobs: in any order; the table is sorted by namespace and name.
        now: the time to which ages are counted.
        wide: True adds the columns that ``kubectl get -o wide`` adds.
        with_namespace: True adds the namespaces.
        with_kind: True writes the kind before each name.
    """
    columns = [one for one in resource.columns if wide or one[3] == 0]
    rows = [["NAME", *(name.upper() for name, *_ in columns)]]
    ordered = sorted(jobs, key=_place)
    for job in ordered:
        name = str(job["metadata"]["name"])
        title = f"{resource.kind.lower()}/{name}" if with_kind else name
        rows.append([title, *(_cell(job, kind, path, now) for _, kind, path, _ in columns)])
    if with_namespace:
        spaces = ["NAMESPACE", *(str(job["metadata"]["namespace"]) for job in ordered)]
        rows = [[space, *row] for space, row in zip(spaces, rows, strict=True)]
    return _aligned(rows)


def age(seconds: float) -> str:
    """A duration as kubectl writes ages: 5s, 2m30s, 15m, 5h3m, 20h, 3d4h, 40d."""
    whole = max(0, int(seconds))
    if whole < 2 * MINUTE:
        return f"{whole}s"
    if whole < 10 * MINUTE:
        return _two(whole // MINUTE, "m", whole % MINUTE, "s")
    if whole < 3 * HOUR:
        return f"{whole // MINUTE}m"
    if whole < 8 * HOUR:
        return _two(whole // HOUR, "h", whole % HOUR // MINUTE, "m")
    if whole < 2 * DAY:
        return f"{whole // HOUR}h"
    if whole < 8 * DAY:
        return _two(whole // DAY, "d", whole % DAY // HOUR, "h")
    return f"{whole // DAY}d"


def _two(first: int, unit: str, second: int, small_unit: str) -> str:
    return f"{first}{unit}{second}{small_unit}" if second else f"{first}{unit}"


def _place(job: Manifest) -> tuple[str, str]:
    return str(job["metadata"].get("namespace", "")), str(job["metadata"]["name"])


def _cell(job: Manifest, kind: str, path: str, now: datetime) -> str:
    """The text of a cell; the API server joins several values of a text, and takes the first of others."""
    values = _values(job, path)
    if not values:
        return ""
    if kind == "date":
        return age(seconds_since(str(values[0]), now))
    return " ".join(map(str, values)) if kind == "string" else str(values[0])


def _values(job: Manifest, path: str) -> list[Any]:
    """The values at a path of a column; empty if there is none."""
    found: list[Any] = [job]
    for name, index in STEP.findall(path):
        if name:
            found = [one[name] for one in found if isinstance(one, dict) and name in one]
        else:
            lists = [one for one in found if isinstance(one, list)]
            found = [each for one in lists for each in (one[-1:] if index == "-1:" else one)]
    return [one for one in found if one is not None]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) + GAP for column in zip(*rows, strict=True)]
    return [
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
