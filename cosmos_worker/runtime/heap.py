"""The heap of a process that computes on a CPU."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""The largest that glibc admits; larger blocks are always mapped and unmapped."""
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed memory stay in the process, for its next tensors of that size.

    Every step frees and takes the same gigabytes; given back and taken again, each of their pages costs the kernel
    microseconds, a twentieth to a tenth of a step. The process keeps the most that it has needed.

    Returns:
        True if the C library has done it; others than glibc, such as musl, do not know how.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    done = [mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD), mallopt(M_TRIM_THRESHOLD, NEVER)]
    return all(done)
