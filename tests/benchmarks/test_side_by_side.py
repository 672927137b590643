"""Comparisons of several ways to do the same work."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from side_by_side import Comparison, add_options, alternate, compare, finish, table

TIMES = Comparison("float32", "theirs", {"theirs": [2.0, 4.0, 9.0], "ours": [1.0, 4.0, 3.0]})


def parse(*arguments: str) -> argparse.Namespace:
    return add_options(argparse.ArgumentParser()).parse_args(arguments)


class Clock:
    """Passes by as much as the last work says that it took."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_speed_is_the_median_of_the_ratios_of_each_round() -> None:
    assert TIMES.speeds("ours") == [2.0, 1.0, 3.0]
    assert TIMES.speed("ours") == 2.0  # the ratio of the medians is 4 / 3
    assert TIMES.spread("ours") == (1.0, 3.0)
    assert TIMES.share("ours", "theirs") == 0.5


def test_alternate_turns_the_order_and_counts_each_way_alone() -> None:
    clock, order = Clock(), []

    def way(name: str, seconds: float) -> None:
        order.append(name)
        clock.work(seconds)

    ways = {"a": lambda: way("a", 1), "b": lambda: way("b", 2), "c": lambda: way("c", 3)}
    seconds = alternate(ways, rounds=3, warm_up=1, clock=clock)

    assert seconds == {"a": [1] * 3, "b": [2] * 3, "c": [3] * 3}
    assert "".join(order) == "cab" + "abc" + "bca" + "cab"


def test_alternate_waits_for_the_device_inside_the_measured_time() -> None:
    clock = Clock()
    queued = []

    def wait() -> None:
        clock.work(sum(queued))
        queued.clear()

    assert alternate({"a": lambda: queued.append(5)}, 2, 0, clock, wait) == {"a": [5, 5]}


def test_table_has_a_row_for_each_way_and_a_column_for_each_comparison() -> None:
    other = Comparison("bfloat16", "theirs", {"theirs": [1.0]}, {"compiled": "no compiler"})

    assert table([TIMES, other]).splitlines() == [
        "| speed | float32 | bfloat16 |",
        "|---|---|---|",
        "| theirs | 1 | 1 |",
        "| ours | 2.00 (1.00 to 3.00) | not measured |",
        "| compiled | not measured | no compiler |",
    ]


def test_compare_refuses_a_reference_that_is_not_measured() -> None:
    with pytest.raises(ValueError, match="reference 'theirs' is not one of"):
        compare("float32", {"ours": lambda: None}, parse(), "theirs")


def test_finish_writes_what_was_measured_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = parse("--json", str(tmp_path / "out.json"), "--rounds", "2")
    one = compare("float32", {"a": lambda: sum(range(1000)), "b": lambda: None}, options, "a")

    finish("example", [one], options, {"tokens": 640})

    written = json.loads((tmp_path / "out.json").read_text())
    assert written["facts"] == {"tokens": 640}
    assert len(written["comparisons"][0]["seconds"]["b"]) == 2
    assert written["comparisons"][0]["speed"]["a"] == 1
    assert written["machine"]["packages"]["torch"]
    assert "| b |" in capsys.readouterr().out
