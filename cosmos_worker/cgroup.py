"""Whether the system killed processes of this container for memory: counters of control groups, version 2 and 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def _counter_files(mount: Path, membership: Path) -> Iterator[Path]:
    """Files that may hold the counter; in a container, the group's own path is often not mounted but its root is."""
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, name = mount / "memory", "memory.oom_control"
        elif not controllers:
            top, name = mount, "memory.events"
        else:
            continue
        yield top / path.lstrip("/") / name
        yield top / name


def count_oom_kills(mount: Path = MOUNT, membership: Path = MEMBERSHIP) -> int:
    """Processes of this container that were killed because its memory ran out; 0 where nobody counts."""
    try:
        for path in _counter_files(mount, membership):
            if not path.is_file():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except OSError:  # no such files on this system
        return 0
    return 0
