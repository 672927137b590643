"""Limits of this container from its control group, version 1 or 2: CPUs, and processes killed for memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def _group_files(
    mount: Path, membership: Path, controller: str, old_name: str, new_name: str
) -> Iterator[Path]:
    """Paths of a controller's file: the group's own, and that at the mount's root, the only one in many containers."""
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            top, name = mount / controller, old_name
        elif not controllers:
            top, name = mount, new_name
        else:
            continue
        yield top / path.lstrip("/") / name
        yield top / name


def count_oom_kills(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Number of processes of this container that the kernel killed for memory; 0 if there is no such counter."""
    try:
        for path in _group_files(
            mount, membership, "memory", "memory.oom_control", "memory.events"
        ):
            if not path.is_file():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except OSError:  # no such files on this system
        return 0
    return 0


def available_memory(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its container if that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for path in _group_files(
            mount, membership, "memory", "memory.limit_in_bytes", "memory.max"
        ):
            if path.is_file():
                limit = path.read_text(encoding="utf-8").strip()
                return machine if limit == "max" else min(machine, int(limit))
    except OSError:  # no such files on this system
        return machine
    return machine


def available_cpus(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """CPUs that this process may keep busy, at least 1: its affinity, and the limit of its container rounded up."""
    allowed = len(os.sched_getaffinity(0))
    try:
        for path in _group_files(mount, membership, "cpu", "cpu.cfs_quota_us", "cpu.max"):
            if not path.is_file():
                continue
            quota, _, period = path.read_text(encoding="utf-8").strip().partition(" ")
            period = period or path.with_name("cpu.cfs_period_us").read_text(encoding="utf-8")
            if quota not in ("max", "-1"):
                return max(1, min(allowed, -(-int(quota) // int(period))))
    except OSError:  # no such files on this system
        return allowed
    return allowed
