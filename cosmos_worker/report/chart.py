"""The loss curve as inline SVG. Colours are CSS classes, so the page's light and dark themes apply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import fmean

Point = tuple[float, float]

WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 42
SMOOTHING_SHARE = 0.04
"""Half width of the running mean of the loss, as a share of all points."""
OUTLIER_SHARE = 0.02
"""Share of the highest and of the lowest training values that may lie outside of the picture."""


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that span low to high, about ``count`` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    magnitude: float = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """Centred running mean of (step, value) points; its window shrinks towards both ends, so that it stays centred."""
    values = [value for _, value in points]
    reach = max(1, round(SMOOTHING_SHARE * len(points)))
    smoothed = []
    for index, (step, _) in enumerate(points):
        near = min(reach, index, len(points) - 1 - index)
        smoothed.append((step, fmean(values[index - near : index + near + 1])))
    return smoothed


def _value_range(train: Sequence[Point], validation: Sequence[Point]) -> Point:
    """Lowest and highest value of the picture: it shows all held-out values, and training values except outliers."""
    values = sorted(value for _, value in train)
    cut = int(len(values) * OUTLIER_SHARE)
    kept = values[cut : len(values) - cut] + [value for _, value in validation]
    low, high = min(kept), max(kept)
    margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


class _Axes:
    """Maps steps and values to coordinates of the picture, and draws lines, dots and grid in it."""

    def __init__(self, last_step: float, values: Point) -> None:
        self.last_step = max(last_step, 1.0)
        self.low, self.high = values

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.last_step

    def y(self, value: float) -> float:
        inner = HEIGHT - TOP - BOTTOM
        return TOP + inner * (self.high - value) / (self.high - self.low)

    def line(self, points: Sequence[Point], name: str) -> str:
        shown = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in points)
        return f'<polyline class="{name}" points="{shown}" clip-path="url(#plot)"/>'

    def dots(self, points: Sequence[Point], name: str) -> str:
        return "".join(
            f'<circle class="{name}" cx="{self.x(step):.1f}" cy="{self.y(value):.1f}" r="4">'
            f"<title>step {step:g}: {value:.4g}</title></circle>"
            for step, value in points
        )

    def grid(self) -> str:
        parts = []
        for tick in nice_ticks(self.low, self.high):
            y = self.y(tick)
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            parts.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
            )
        parts += [
            f'<text class="tick" x="{self.x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>'
            for tick in nice_ticks(0, self.last_step, 6)
        ]
        bottom = HEIGHT - BOTTOM
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
        )
        return "".join(parts)


def loss_chart(train: Sequence[Point], validation: Sequence[Point]) -> str:
    """Draw the training loss (faint, with its running mean) and the held-out loss (line and dots) as SVG.

    Args:
        train: (step, training loss), finite, in the order of steps, not empty.
        validation: (step, held-out loss), finite, in the order of steps; may be empty.
    """
    axes = _Axes(max(step for step, _ in (*train, *validation)), _value_range(train, validation))
    label = f"Loss over {axes.last_step:g} steps, {train[0][1]:.3g} at first, {train[-1][1]:.3g} at last"
    clip = (
        f'<clipPath id="plot"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
    )
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        clip,
        axes.grid(),
        axes.line(train, "raw"),
        axes.line(smooth(train), "mean"),
    ]
    if validation:
        parts += [axes.line(validation, "held"), axes.dots(validation, "held-dot")]
    parts += [
        f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">',
        "optimizer step</text>",
        "</svg>",
    ]
    return "".join(parts)
