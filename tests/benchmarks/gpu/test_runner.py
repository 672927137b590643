"""Parts of the GPU benchmark: those that fail, hang or crash do not stop the others, and all is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.measuring import serve

from benchmarks.gpu.parts import Part
from benchmarks.gpu.runner import MeasuringProcess, Outcome, run_parts


def part(does: str = "nothing", seconds: float = 1.0) -> Part:
    return Part("table", does, seconds, "module:function", {"does": does})


@pytest.fixture
def process() -> Iterator[MeasuringProcess]:
    process = MeasuringProcess(serve)
    yield process
    process.close()


def run(parts: list[Part], measure, time_left=lambda: 1000.0, **options) -> list[Outcome]:
    outcomes: list[Outcome] = []
    run_parts(parts, measure, time_left, outcomes.append, **options)
    return outcomes


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("raise", "ValueError: as asked"),
        ("crash", "the measuring process ended by itself with exit code 9"),
        ("break the device", "AcceleratorError: as asked"),
    ],
)
def test_part_that_fails_does_not_stop_the_others(
    process: MeasuringProcess, does: str, reason: str
) -> None:
    first, failed, last = run([part("a"), part(does), part("b")], process)

    assert [first.status, failed.status, last.status] == ["done", "failed", "done"]
    assert failed.reason == reason
    numbers = [outcome.rows[0]["process"] for outcome in (first, failed, last)]
    assert numbers[0] == numbers[1], "rows of a part that fails are kept"
    assert (numbers[1] == numbers[2]) is (does == "raise"), "a process that is broken is replaced"


def test_part_that_hangs_is_stopped(process: MeasuringProcess) -> None:
    hung, last = run([part("hang", 0.001), part("b", 30)], process, least_limit_s=20.0)

    assert (hung.status, last.status) == ("failed", "done")
    assert hung.reason == "stopped after 20 s (estimate 0 s)"


def test_part_for_which_time_is_short_is_left_out_and_shorter_ones_are_measured() -> None:
    measured = []

    def measure(one: Part, limit_s: float, figures, hear) -> None:
        measured.append((one.name, limit_s))

    long, short = run([part("long", 60), part("short", 5)], measure, lambda: 30.0)

    assert (long.status, short.status) == ("left out", "done")
    assert long.reason == "takes about 60 s, and 30 s were left"
    assert measured == [("short", 30.0)]


def test_figures_reach_later_parts_and_problems_fail_a_part_with_its_rows() -> None:
    seen = []

    def measure(one: Part, limit_s: float, figures: dict[str, float], hear) -> None:
        seen.append(dict(figures))
        hear(("figure", (one.name, 2.0)))
        hear(("row", {"error": 1.0}))
        if one.name == "off":
            hear(("problem", "error 1 of 0.5"))
        if one.name == "absent":
            hear(("absence", "no such kernel"))

    off, absent, well = run([part("off"), part("absent"), part("well")], measure)

    assert seen == [{}, {"off": 2.0}, {"off": 2.0, "absent": 2.0}]
    assert (off.status, off.reason, off.rows) == ("failed", "error 1 of 0.5", [{"error": 1.0}])
    assert (absent.status, absent.reason) == ("left out", "no such kernel")
    assert well.status == "done"
