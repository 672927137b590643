"""Samples of what may grow, and a verdict on each: flat, or growing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALLOWED_PER_HOUR = 0.05
"""Growth per hour that counts as flat, as a part of the median of the first samples."""
ALLOWED_STEPS = {"open descriptors": 5.0, "files on the claim, MiB": 50.0}
"""Growth per hour that counts as flat whatever the part; of objects it is 10."""
WARM_UP = 0.25
"""Part of the samples at the beginning that the slope leaves out: caches fill first."""


@dataclass(frozen=True)
class Growth:
    """The course of one quantity."""

    name: str
    start: float
    end: float
    per_hour: float
    """Slope by least squares, after the warm-up."""
    is_flat: bool

    def row(self) -> str:
        """A row of the table."""
        verdict = "flat" if self.is_flat else "GROWS"
        return f"| {self.name} | {self.start:g} | {self.end:g} | {self.per_hour:+.2f} | {verdict} |"


def judge(name: str, minutes: Sequence[float], values: Sequence[float]) -> Growth:
    """The course of a quantity and its verdict.

    Args:
        name: of the quantity, with its unit.
        minutes: of each sample, since the beginning.
        values: one a sample; at least four.
    """
    first = int(len(values) * WARM_UP)
    times, kept = minutes[first:], values[first:]
    per_hour = 60 * _slope(times, kept)
    base = sorted(kept)[len(kept) // 2]
    allowed = max(ALLOWED_PER_HOUR * base, ALLOWED_STEPS.get(name, 10.0))
    return Growth(name, values[0], values[-1], per_hour, per_hour <= allowed)


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    together = sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True))
    return together / spread if spread else 0.0


def table(minutes: Sequence[float], samples: Sequence[Mapping[str, float]]) -> tuple[str, bool]:
    """The table of all quantities, and True if all are flat."""
    found = [judge(name, minutes, [one[name] for one in samples]) for name in samples[0]]
    head = "| quantity | start | end | growth per hour | verdict |\n|---|---|---|---|---|\n"
    return head + "\n".join(one.row() for one in found), all(one.is_flat for one in found)
