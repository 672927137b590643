"""The cgroup in which everything of the cluster runs, so that all of it can be found and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.constants import CGROUP
from harness.errors import HarnessError

ROOT = Path("/sys/fs/cgroup")
TRACKING = ROOT / "pids" / CGROUP
"""Membership is read in the pids hierarchy: the kernel keeps children in it, whatever they do."""
DAEMONS = TRACKING / "daemons"
PODS = TRACKING / "kubepods"


def hierarchies() -> list[Path]:
    """The version 1 hierarchies of this machine (and the unified one beside them)."""
    if not (ROOT / "pids").is_dir():
        raise HarnessError(
            f"{ROOT}/pids is missing: the local cluster was made for version 1 cgroup controllers, one folder each"
        )
    return sorted(path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink())


def create() -> None:
    """Make the cluster's cgroup in every version 1 hierarchy."""
    for hierarchy in hierarchies():
        if hierarchy.name != "unified":
            (hierarchy / CGROUP).mkdir(exist_ok=True)
    cpuset = ROOT / "cpuset"
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (cpuset / name).exists():
            (cpuset / CGROUP / name).write_text((cpuset / name).read_text())
    DAEMONS.mkdir(exist_ok=True)


def members(folder: Path = TRACKING) -> Iterator[int]:
    """Every process in a cgroup and below it."""
    for file in folder.glob("**/cgroup.procs"):
        try:
            yield from (int(word) for word in file.read_text().split())
        except OSError:  # the cgroup went away while we looked
            continue


def remove() -> None:
    """Remove the cluster's cgroups, which must be empty."""
    for hierarchy in hierarchies():
        folders = [path for path in (hierarchy / CGROUP).glob("**/") if path.is_dir()]
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue


def leftovers() -> list[Path]:
    """The cluster's cgroups that exist."""
    return [path / CGROUP for path in hierarchies() if (path / CGROUP).exists()]
