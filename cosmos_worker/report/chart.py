"""The loss curve as inline SVG. Colours are CSS classes, so the page's light and dark themes apply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import fmean

Point = tuple[float, float]

WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 14, 42
COLOURS = 6
"""Curves that have a colour of their own in one picture."""
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

    def line(self, points: Sequence[Point], name: str, frame: str = "plot") -> str:
        shown = " ".join(f"{self.x(step):.1f},{self.y(value):.1f}" for step, value in points)
        return f'<polyline class="{name}" points="{shown}" clip-path="url(#{frame})"/>'

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
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        _clip("plot"),
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


def curves_chart(curves: Sequence[tuple[str, Sequence[Point]]], title: str) -> str:
    """Draw curves of several runs over each other as SVG; the classes c0, c1, … have their colours.

    Args:
        curves: (name, points) of each run, finite and in the order of steps; at least one has points.
        title: of the picture, for those who do not see it.
    """
    points = [point for _, one in curves for point in one]
    axes = _Axes(max(step for step, _ in points), _value_range(points, ()))
    label = f"{title}; " + "; ".join(
        f"{name}: {one[0][1]:.3g} at step {one[0][0]:g}, {one[-1][1]:.3g} at step {one[-1][0]:g}"
        for name, one in curves
        if one
    )
    frame = _plot_id(title)
    return "".join(
        [
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
            _clip(frame),
            axes.grid(),
            *(
                axes.line(one, f"line c{number % COLOURS}", frame)
                for number, (_, one) in enumerate(curves)
                if one
            ),
            f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">',
            "optimizer step</text></svg>",
        ]
    )


def _clip(frame: str) -> str:
    """The frame of a picture, outside of which curves are not drawn."""
    return (
        f'<clipPath id="{frame}"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>'
    )


def _plot_id(title: str) -> str:
    """The id of a picture's frame, of letters and digits."""
    return "plot-" + "".join(char for char in title.lower() if char.isascii() and char.isalnum())
