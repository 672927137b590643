"""What control groups, version 2 and 1, say of this container: killed processes, and the CPUs that it may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def _group_files(
    mount: Path, membership: Path, controller: str, old_name: str, new_name: str
) -> Iterator[Path]:
    """Files of a controller; in a container, the group's own path is often not mounted but its root is."""
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
    """Processes of this container that were killed because its memory ran out; 0 where nobody counts."""
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
