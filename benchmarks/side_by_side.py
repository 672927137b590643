"""Several ways to do the same work, measured beside each other in one process. Other benchmarks import this.

    from side_by_side import add_options, compare, finish

    parser = add_options(argparse.ArgumentParser(description=__doc__))
    options = parser.parse_args()
    one = compare("float32", {"diffusers": theirs, "ours": ours}, options, reference="diffusers")
    finish("training-step", [one], options, facts={"tokens": 640})

``compare`` runs each way once a round, in another order each round, and divides its time by the time that the
reference took in the same round: a slow moment of the machine hits neighbours, not one way. The figure of a way is
the median of these ratios, as speed: 1.5 does the work in two thirds of the time. Callables take no arguments, do all
of the work before they return (``synchronize`` waits for a GPU), and have been shown to compute the same.

``finish`` prints a table in Markdown, a row a way and a column a comparison, and writes ``--json FILE`` if asked.
Seconds are in the JSON only: they depend on the machine more than ratios do. ``--clock processor`` counts the time of
the process on all its threads in place of the wall's clock, which other programs on the machine lengthen; it is right
for work of one thread that waits for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}
PACKAGES = ("torch", "diffusers", "transformers", "av", "numpy")
"""Packages whose versions are part of the facts of a run."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Ways to do the same work, measured round by round.

    Attributes:
        title: head of its column.
        reference: the way that has speed 1.
        seconds: way → its time in each round.
        not_measured: way → why it could not run here, in a few words.
    """

    title: str
    reference: str
    seconds: dict[str, list[float]]
    not_measured: dict[str, str] = field(default_factory=dict)

    def speeds(self, way: str) -> list[float]:
        """Time of the reference divided by that of the way, of each round."""
        pairs = zip(self.seconds[self.reference], self.seconds[way], strict=True)
        return [reference / own for reference, own in pairs]

    def speed(self, way: str) -> float:
        """The median of the speeds of all rounds."""
        return statistics.median(self.speeds(way))

    def share(self, part: str, whole: str) -> float:
        """The median share that one way has of the time of another, from 0 on."""
        pairs = zip(self.seconds[part], self.seconds[whole], strict=True)
        return statistics.median(own / total for own, total in pairs)

    def spread(self, way: str) -> tuple[float, float]:
        """First and third quartile of the speeds; the extremes where there are fewer than four rounds."""
        speeds = self.speeds(way)
        if len(speeds) < 4:
            return min(speeds), max(speeds)
        first, _, third = statistics.quantiles(speeds, n=4, method="inclusive")
        return first, third


def add_options(parser: argparse.ArgumentParser, rounds: int = 9) -> argparse.ArgumentParser:
    """Add ``--rounds``, ``--warm-up``, ``--clock`` and ``--json`` to a benchmark's parser, and return it."""
    parser.add_argument("--rounds", type=int, default=rounds, help="measured rounds")
    parser.add_argument("--warm-up", type=int, default=1, help="rounds before them")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what is counted")
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser


def compare(
    title: str,
    ways: Mapping[str, Work],
    options: argparse.Namespace,
    reference: str,
    synchronize: Work | None = None,
    not_measured: Mapping[str, str] | None = None,
) -> Comparison:
    """Run all ways, alternating, and say on standard error what each took.

    Args:
        title: of the column.
        ways: name → the work.
        options: of :func:`add_options`.
        reference: the way that the others are compared with.
        synchronize: waits until the device is idle, before a clock is read; None = work is done when it returns.
        not_measured: ways that could not run here, with the reason.

    Raises:
        ValueError: the reference is not one of the ways, or no round is to be measured.
    """
    if reference not in ways:
        raise ValueError(f"{title}: reference {reference!r} is not one of {sorted(ways)}")
    if options.rounds < 1:
        raise ValueError(f"--rounds: got {options.rounds}; at least 1")
    seconds = alternate(ways, options.rounds, options.warm_up, CLOCKS[options.clock], synchronize)
    for name, times in seconds.items():
        print(f"{title}: {name}: {statistics.median(times):.4g} s", file=sys.stderr)
    return Comparison(title, reference, seconds, dict(not_measured or {}))


def alternate(
    ways: Mapping[str, Work],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    synchronize: Work | None = None,
) -> dict[str, list[float]]:
    """Seconds of each way in each round; the order turns by one place a round."""
    names = list(ways)
    wait = synchronize or (lambda: None)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            wait()
            begin = clock()
            ways[name]()
            wait()
            if number >= 0:
                seconds[name].append(clock() - begin)
    return seconds


def table(comparisons: Sequence[Comparison]) -> str:
    """Speeds in Markdown: a row a way, a column a comparison, with the quartiles of the rounds."""
    names = list(
        dict.fromkeys(way for one in comparisons for way in (*one.seconds, *one.not_measured))
    )
    lines = [
        f"| speed | {' | '.join(one.title for one in comparisons)} |",
        "|---" * (len(comparisons) + 1) + "|",
    ]
    lines += [
        f"| {name} | {' | '.join(_cell(one, name) for one in comparisons)} |" for name in names
    ]
    return "\n".join(lines)


def _cell(comparison: Comparison, way: str) -> str:
    if way in comparison.not_measured:
        return comparison.not_measured[way]
    if way not in comparison.seconds:
        return "not measured"
    if way == comparison.reference:
        return "1"
    low, high = comparison.spread(way)
    return f"{comparison.speed(way):.2f} ({low:.2f} to {high:.2f})"


def machine_facts() -> dict[str, Any]:
    """The machine, its load, the versions of packages, and the commit that is measured."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "commit": commit or None,
        "command": " ".join(sys.argv),
    }


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def finish(
    name: str,
    comparisons: Sequence[Comparison],
    options: argparse.Namespace,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Print the table with one line about the machine, write the JSON, and return what it holds.

    Args:
        name: of the benchmark.
        comparisons: columns of the table.
        options: of :func:`add_options`.
        facts: sizes and whatever else explains the figures; part of the JSON.
    """
    machine = machine_facts()
    result = {
        "benchmark": name,
        "machine": machine,
        "facts": dict(facts or {}),
        "clock": options.clock,
        "comparisons": [
            {**asdict(one), "speed": {way: round(one.speed(way), 3) for way in one.seconds}}
            for one in comparisons
        ],
    }
    print(table(comparisons))
    print(
        f"\n{machine['processor']}, {machine['cores']} cores, OMP_NUM_THREADS {machine['threads']}, "
        f"load {machine['load_average'][0]}, torch {machine['packages'].get('torch')}, commit "
        f"{machine['commit']}, {options.rounds} rounds, {options.clock} clock: `{machine['command']}`"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result
