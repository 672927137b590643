"""Kill a worker's processes and break its storage, many times, and tell what came of it.

Run ``.venv/bin/python benchmarks/worker_sweep.py [--runs 200] [--parts kills,storage,damage,evictions]``, or
``make worker-sweep RUNS=200``. A tiny job of six stages (fetch-model, prepare-dataset, embed-text, cache-latents,
train, publish) is carried out once without faults. Then copies of its volumes are carried on with a fault, looked at,
and carried out to their end, which must have the same bits. It prints tables in Markdown; ``--json FILE`` writes all
results. The seed is printed; ``--seed`` repeats a sweep.

Killed processes do not lose what the system has not written to the disk: crashes of the machine are not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from faults import damage, evictions, job, kills, storage  # noqa: E402 - they are found now

PARTS = ("kills", "storage", "damage", "evictions")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep; returns 0 if nothing was wrong."""
    options = build_parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="worker-sweep-") as folder:
        return run(options, Path(folder))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="runs with a kill")
    parser.add_argument(
        "--evictions", type=int, default=50, help="evictions in a row, for 1 and 2 processes each"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=None, help="of the draws; the default is drawn")
    parser.add_argument("--json", type=Path, default=None, help="file that receives all results")
    return parser


def run(options: argparse.Namespace, folder: Path) -> int:
    """Run the parts that are asked for, and print their tables; returns 0 if nothing was wrong."""
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    draw, begin = random.Random(seed), time.monotonic()
    print(f"{platform.platform()}, {os.cpu_count()} cores, seed {seed}", flush=True)
    reference = job.make_reference(folder)
    print(f"uninterrupted job: {sum(reference.seconds.values()):.1f} s of stages", flush=True)
    results: dict[str, Any] = {"seed": seed}
    wrong = 0
    for part in options.parts.split(","):
        started = time.monotonic()
        lines, found, problems = RUNNERS[part](reference, options, draw)
        results[part], wrong = found, wrong + problems
        print(f"\n{part}: {len(found)} results in {time.monotonic() - started:.0f} s\n", flush=True)
        print("\n".join(lines), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=1, default=str) + "\n")
    print(f"\n{wrong} results are wrong; {time.monotonic() - begin:.0f} s in all")
    return 1 if wrong else 0


Found = tuple[list[str], list[Any], int]


def _collect(results: Iterable[Any], options: argparse.Namespace) -> list[Any]:
    """All results, each written down as soon as it is known, so that a sweep that is ended early has its figures."""
    found = []
    for result in results:
        found.append(result)
        if options.json is not None:
            with options.json.with_suffix(".jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(result), default=str) + "\n")
    return found


def _kills(reference: job.Reference, options: argparse.Namespace, draw: random.Random) -> Found:
    points = kills.choose_points(reference, options.runs, draw)
    results = _collect(kills.sweep(reference, points), options)
    wrong = [one for one in results if one.problems]
    lines = [f"\n{one.point}: {one.problems}" for one in wrong]
    return kills.table(results) + lines, [asdict(one) for one in results], len(wrong)


def _storage(reference: job.Reference, options: argparse.Namespace, draw: random.Random) -> Found:
    results = _collect(storage.sweep(reference), options)
    wrong = sum(bool(one.partial or one.problems) for one in results)
    return storage.table(results), [asdict(one) for one in results], wrong


def _damage(reference: job.Reference, options: argparse.Namespace, draw: random.Random) -> Found:
    results = _collect(damage.sweep(reference), options)
    wrong = sum("SILENTLY" in one.verdict or "NOT NOTICED" in one.verdict for one in results)
    return damage.table(results), [asdict(one) for one in results], wrong


def _evictions(reference: job.Reference, options: argparse.Namespace, draw: random.Random) -> Found:
    both = (evictions.evict(reference, world, options.evictions, draw) for world in (1, 2))
    results = _collect(both, options)
    lines = [f"steps lost by each: {one.lost}; {one.problems}" for one in results]
    wrong = sum(bool(one.problems) for one in results)
    return evictions.table(results) + lines, [asdict(one) for one in results], wrong


RUNNERS = {"kills": _kills, "storage": _storage, "damage": _damage, "evictions": _evictions}


if __name__ == "__main__":
    sys.exit(main())
