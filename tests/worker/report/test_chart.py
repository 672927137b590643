from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from cosmos_worker.report.chart import loss_chart, nice_ticks, smooth


def points_of(svg: str, name: str) -> list[tuple[float, float]]:
    line = next(one for one in ET.fromstring(svg).iter("polyline") if one.get("class") == name)
    return [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.75, 0.35, [-0.75, -0.5, -0.25, 0, 0.25]),
        (0, 700, [0, 200, 400, 600]),
        (3, 3, [3]),
    ],
)
def test_nice_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(wanted)


def test_smooth_does_not_shift_a_straight_line() -> None:
    line = [(float(step), 3.0 - step) for step in range(60)]

    assert smooth(line) == [(step, pytest.approx(value)) for step, value in line]


def test_loss_chart_is_not_flattened_by_one_outlier() -> None:
    train = [(float(step), math.exp(-step / 100)) for step in range(1, 201)]
    train[0] = (1.0, 1e6)

    heights = [y for _, y in points_of(loss_chart(train, []), "raw")][1:]

    assert max(heights) - min(heights) > 150


@pytest.mark.parametrize(
    "train", [[(1.0, 0.5)], [(1.0, 0.5), (2.0, 0.5)], [(5.0, -0.2), (9.0, -0.9)]]
)
def test_loss_chart_draws_few_equal_and_negative_values(train: list[tuple[float, float]]) -> None:
    svg = loss_chart(train, train)

    assert len(points_of(svg, "raw")) == len(train)
    assert all(math.isfinite(value) for point in points_of(svg, "mean") for value in point)
