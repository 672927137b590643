"""The sweep as a command: ``make operator-sweep SCHEDULES=5000 SEED=1``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from support.crash_sweep.sweep import run_sweep


def _tell(totals: Counter[str]) -> None:
    parts = (f"{name}: {number}" for name, number in sorted(totals.items()))
    sys.stdout.write("; ".join(parts) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run it, and print the sums."""
    parser = argparse.ArgumentParser(prog="operator-sweep", description=__doc__)
    parser.add_argument("--schedules", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no further twenty schedules after this time",
    )
    options = parser.parse_args()
    sys.stdout.write(f"seed {options.seed}, {options.schedules} schedules\n")
    sys.stdout.flush()
    began, used = time.monotonic(), time.process_time()
    try:
        totals = run_sweep(
            options.schedules, options.seed, seconds=60 * options.minutes, tell=_tell
        )
    except AssertionError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    _tell(totals)
    seconds, processor_s = time.monotonic() - began, time.process_time() - used
    sys.stdout.write(
        f"no rule was broken; {seconds:.0f} s, of which {processor_s:.0f} s processor\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
