"""Measure the worker on one GPU that is lent for minutes; on a bare machine too, without a network.

Run ``python -m benchmarks.gpu --minutes 5 --output FOLDER`` in the root of the repository. It needs PyTorch with CUDA,
safetensors, numpy, PyYAML and tqdm (transformers brings the last three); pydantic and torchao may be carried along as
wheels, see ``wheels.py``. ``--tiny`` runs everything at tiny sizes on a CPU, for trial.

Results are printed and saved as JSON and Markdown after every part. The exit code is 1 if a part has failed or a
figure is beyond its tolerance, 2 if nothing can be measured here, and 0 if all were done or left out for lack of time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.parts import MACHINE, Part, all_parts
from benchmarks.gpu.wheels import DEFAULT_FOLDER, use_wheels

ROOT = Path(__file__).resolve().parents[2]
ENDING_S = 10.0
"""Seconds of the given time that are kept for the end."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="time for everything (default 5)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "bench-gpu", help="folder of the results"
    )
    parser.add_argument(
        "--disk",
        type=Path,
        help="folder for checkpoints, 55 GiB for all parts; default: a temporary one below --output",
    )
    parser.add_argument(
        "--wheels",
        type=Path,
        default=DEFAULT_FOLDER,
        help="folder of the wheels that were carried along; need not exist",
    )
    parser.add_argument(
        "--only",
        metavar="WORDS",
        help="parts whose title contains one of these words, with commas between them, such as 'vectors,float8'",
    )
    parser.add_argument("--list", action="store_true", help="list the parts with their estimates")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU, for trial")
    return parser


def choose(only: str | None) -> list[Part]:
    """The parts whose title contains one of the words; all without words.

    Raises:
        ValueError: no part does.
    """
    parts = list(all_parts())
    if only is None:
        return parts
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    chosen = [part for part in parts if any(word in part.title.lower() for word in words)]
    if not chosen:
        raise ValueError(f"--only: no part's title contains {only!r}; --list shows all titles")
    return chosen


def describe_commit() -> str:
    """The commit of the checkout; ``unknown`` where git or its folder is not there."""
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns the exit code."""
    began = time.monotonic()
    options = build_parser().parse_args(arguments)
    try:
        parts = choose(options.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for part in parts:
            print(f"{part.seconds:5.0f} s  {part.title}")
        return 0
    with tempfile.TemporaryDirectory(prefix="wheels-") as unpacked:
        use_wheels(options.wheels, Path(unpacked))
        return _measure(options, parts, began)


def _measure(options: argparse.Namespace, parts: Sequence[Part], began: float) -> int:
    from benchmarks.gpu.report import save, summary
    from benchmarks.gpu.runner import LEAST_LIMIT_S, MeasuringProcess, Outcome, run_parts
    from benchmarks.gpu.sizes import TINY, TRUE
    from benchmarks.gpu.worker import serve

    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    disk = Path(tempfile.mkdtemp(prefix="scratch-", dir=options.disk or output))
    facts = {"commit": describe_commit(), "sizes": "tiny, for trial" if options.tiny else "7B"}
    outcomes: list[Outcome] = []

    def finished(outcome: Outcome) -> None:
        outcomes.append(outcome)
        save(output, facts, outcomes)
        print(describe(outcome, time.monotonic() - began), flush=True)

    process = MeasuringProcess(serve, TINY if options.tiny else TRUE, disk)
    end = began + 60 * options.minutes - ENDING_S
    least = LEAST_LIMIT_S
    if options.tiny:  # estimates are of the GPU
        least, parts = 60 * options.minutes, [replace(part, seconds=0.0) for part in parts]

    def measure(some: Sequence[Part]) -> None:
        run_parts(some, process, lambda: end - time.monotonic(), finished, least)

    try:
        measure([MACHINE])
        if outcomes[0].status != "done":
            return 2
        measure(parts)
    finally:
        process.close()
        shutil.rmtree(disk, ignore_errors=True)
    print(f"{summary(outcomes)}; results are in {output}")
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def describe(outcome: object, elapsed_s: float) -> str:
    """The lines that are printed of a part: its title, how it ended, and its rows."""
    from benchmarks.gpu.report import cell
    from benchmarks.gpu.runner import Outcome

    assert isinstance(outcome, Outcome)
    reason = f": {outcome.reason}" if outcome.reason else ""
    head = f"[{elapsed_s:.0f} s] {outcome.part.title} {outcome.status} in {outcome.seconds:.1f} s{reason}"
    rows = [
        "  " + ", ".join(f"{name} {cell(value)}" for name, value in row.items())
        for row in outcome.rows
    ]
    return "\n".join([head, *rows])


if __name__ == "__main__":
    sys.exit(main())
