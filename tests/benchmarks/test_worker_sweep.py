"""The faults of the worker's crash sweep; ``make worker-sweep`` carries the sweep out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from faults.operations import SYNC, WRITE, Fault, _Counter


def test_fault_concerns_its_operations_only(tmp_path: Path) -> None:
    root = str(tmp_path)
    fault = Fault(root, "fail", first=2, count=1, kinds=(WRITE,), part="shard", error=errno.ENOSPC)
    counter = _Counter(fault)

    counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
    counter.event("open", (f"{root}/other", "w", os.O_WRONLY))
    counter.event("open", ("/elsewhere/shard", "w", os.O_WRONLY))
    counter.operation(SYNC, f"{root}/shard")
    with pytest.raises(OSError, match="No space left"):
        counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
    counter.event("open", (f"{root}/shard", "w", os.O_WRONLY))
