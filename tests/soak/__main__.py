"""``python -m soak``: an hour of job churn on the running cluster of tests/cluster/harness; 1 if something grows."""

from __future__ import annotations

import argparse
import sys
import time

from harness.cluster import LocalCluster
from support.real_world import OPERATOR_PODS, RealWorld

from soak.churn import Churn, sample
from soak.growth import table

SAMPLE_S = 60.0
STEP_S = 5.0
LOOK = "cat /proc/1/status; ls /proc/1/fd | wc -l"


def operator_facts(world: RealWorld) -> dict[str, float]:
    """Memory and descriptors of all replicas of the operator together, and the disk of the claim."""
    pods = world.kubectl("get", "pods", "-l", OPERATOR_PODS, "-o", "name").split()
    memory = descriptors = 0.0
    for pod in pods:
        *lines, count = world.kubectl("exec", pod, "--", "sh", "-c", LOOK).splitlines()
        memory += sum(float(one.split()[1]) / 1024 for one in lines if one.startswith("VmRSS:"))
        descriptors += float(count)
    files = sum(one.stat().st_blocks * 512 for one in world.folder.rglob("*") if one.is_file())
    return {
        "operator's memory, MiB": round(memory, 1),
        "open descriptors": descriptors,
        "files on the claim, MiB": round(files / 2**20, 1),
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.minutes < 8:
        parser.error("--minutes: a slope needs at least 8 samples, one a minute")
    world = RealWorld(LocalCluster.start())
    churn, began = Churn(world, options.seed), time.monotonic()
    minutes: list[float] = []
    samples: list[dict[str, float]] = []
    while (now := time.monotonic() - began) < options.minutes * 60:
        if now >= len(samples) * SAMPLE_S:
            minutes.append(now / 60)
            samples.append(sample(world, operator_facts(world)))
            sys.stdout.write(f"{minutes[-1]:.1f} min {samples[-1]}\n")
            sys.stdout.flush()
        churn.step()
        time.sleep(STEP_S)
    churn.end()
    text, is_flat = table(minutes, samples)
    sys.stdout.write(f"\n{dict(churn.counts)}\n\n{text}\n")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
