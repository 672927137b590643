"""Freed memory stays in a process: its pages are not taken from the kernel again."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from cosmos_worker.runtime.heap import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    return [torch.ones(2**20) for _ in range(32)]  # 4 MiB each

step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_memory_of_earlier_steps_is_used_again() -> None:
    kept, given_back = page_faults("kept"), page_faults("not")

    assert kept < 100
    assert given_back > 1000
