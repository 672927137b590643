"""The figures of a run: metrics.jsonl, read once and then only what was added to it. No torch here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosmos_worker.report.chart import Point
from cosmos_worker.storage.volumes import METRICS_FILE
from cosmos_worker.view.folders import Folders

Line = dict[str, Any]
MAX_POINTS = 800
"""Points of a drawn curve; of more, neighbours are replaced by their mean."""
TAIL_BYTES = 16 << 10
"""Bytes at the end of the file that a list of runs reads."""


@dataclass
class Figures:
    """Lines of a metrics.jsonl, as far as it was read: its inode, the bytes that are done, and the lines in them."""

    inode: int = -1
    done: int = 0
    lines: list[Line] = field(default_factory=list)


class FigureFiles:
    """The figures of all runs that were looked at; each file is read on from where the last look ended."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._read: dict[Path, Figures] = {}

    def lines(self, run: Path) -> list[Line]:
        """All whole lines; those that are no JSON objects with a step are left out."""
        path = run / METRICS_FILE
        kept = self._read.setdefault(path, Figures())
        try:
            with path.open("rb") as stream:
                self._folders.counts["files"] += 1
                found = path.stat()
                if found.st_ino != kept.inode or found.st_size < kept.done:
                    kept.inode, kept.done, kept.lines = found.st_ino, 0, []
                stream.seek(kept.done)
                added = stream.read()
        except OSError:
            self._read.pop(path, None)
            return []
        whole = added[: added.rfind(b"\n") + 1]
        kept.done += len(whole)
        kept.lines = [*kept.lines, *_parse(whole)]
        return kept.lines

    def last(self, run: Path) -> Line:
        """The last value of every figure, from the end of the file; of 'step' the largest."""
        path = run / METRICS_FILE
        try:
            with path.open("rb") as stream:
                self._folders.counts["files"] += 1
                size = stream.seek(0, 2)
                stream.seek(max(0, size - TAIL_BYTES))
                end = stream.read()
        except OSError:
            return {}
        found: Line = {}
        for line in _parse(end[: end.rfind(b"\n") + 1]):
            found |= line
        return found


def _parse(content: bytes) -> list[Line]:
    found = []
    for text in content.split(b"\n"):
        try:
            line = json.loads(text) if text else None
        except (ValueError, RecursionError):  # the first of a tail is cut
            continue
        if isinstance(line, dict) and _number(line.get("step")) is not None:
            found.append(line)
    return found


def curve(lines: Sequence[Line], name: str) -> list[Point]:
    """(step, value) of a figure, in the order of steps; values that are no finite numbers are left out."""
    points = [(float(line["step"]), _number(line.get(name))) for line in lines]
    return [(step, value) for step, value in points if value is not None]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `MAX_POINTS` points: of more, the means of neighbours; the last point is kept as it is."""
    if len(points) <= MAX_POINTS:
        return list(points)
    width = -(-len(points) // (MAX_POINTS - 1))
    found = []
    for begin in range(0, len(points) - 1, width):
        some = points[begin : min(begin + width, len(points) - 1)]
        steps, values = zip(*some, strict=True)
        found.append((sum(steps) / len(some), sum(values) / len(some)))
    return [*found, points[-1]]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number_of(line: Line, name: str) -> float | None:
    """A figure of a line as a finite number; None if it is absent or something else."""
    return _number(line.get(name))
