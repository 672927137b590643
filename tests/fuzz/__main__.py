"""``python -m fuzz``: tries damaged inputs for a bounded time, prints a table, and keeps those that are faults."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from fuzz.limits import Outcomes, try_all
from fuzz.targets import TARGETS, Target

BATCH = 50


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="time in all (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed tries the same inputs")
    parser.add_argument(
        "--target", action="append", choices=[*TARGETS], help="what to fuzz (default: everything)"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-faults"), help="folder that receives faulty inputs"
    )
    return parser


def run_target(target: Target, seed: int, seconds: float, keep: Path) -> tuple[int, Outcomes]:
    """Try inputs of a target until the time is over; returns their number and what became of them."""
    end, total, number, batch = monotonic() + seconds, Outcomes(), 0, 0
    told = set[str]()
    with tempfile.TemporaryDirectory() as name:
        while monotonic() < end:
            inputs = target.inputs(Path(name), seed * 1_000_000 + batch, BATCH)
            found = try_all(target.attempt, inputs, Path(name))
            total.counts += found.counts
            total.faults += found.faults
            total.slowest_s = max(total.slowest_s, found.slowest_s)
            for fault in found.faults:
                if fault.what in told:
                    continue
                told.add(fault.what)
                where = keep_input(
                    keep, target.name, f"{seed}-{batch}-{fault.number}", inputs[fault.number]
                )
                sys.stdout.write(f"FAULT {where}: {fault.what}\n")
            number, batch = number + len(inputs), batch + 1
    return number, total


def keep_input(folder: Path, target: str, name: str, value: Any) -> Path:
    """Write an input into a folder; returns its path."""
    path = folder / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def main() -> int:
    """Entry point; 1 if there was a fault."""
    options = build_parser().parse_args()
    targets = [TARGETS[name] for name in options.target or TARGETS]
    share = options.minutes * 60 / sum(target.weight for target in targets)
    rows, num_faults = [], 0
    for target in targets:
        number, found = run_target(target, options.seed, share * target.weight, options.keep)
        num_faults += len(found.faults)
        counts = (number, found.counts["accepted"], found.counts["refused"], len(found.faults))
        rows.append(f"| {target.name} | {' | '.join(map(str, counts))} | {found.slowest_s:.2f} |")
    sys.stdout.write(
        f"seed {options.seed}\n\n| input | tried | accepted | refused in a line | faults | slowest, s of CPU |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    return 1 if num_faults else 0


if __name__ == "__main__":
    sys.exit(main())
