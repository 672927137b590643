"""Memory of a process and all its descendants, from /proc (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return children


def _proportional_bytes(pid: int) -> int:
    """Proportional set size: pages that processes share are counted once."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def tree_bytes(pid: int) -> int:
    """Bytes in memory of a process and its descendants."""
    children, total, pending = _children(), 0, [pid]
    while pending:
        current = pending.pop()
        total += _proportional_bytes(current)
        pending += children.get(current, [])
    return total


class PeakMemory(threading.Thread):
    """Samples the memory of a process tree once a second until stopped; ``peak`` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self._stopped = pid, 0, threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(1.0):
            self.peak = max(self.peak, tree_bytes(self.pid))

    def stop(self) -> int:
        """Stop sampling and return the peak."""
        self._stopped.set()
        self.join()
        return self.peak
