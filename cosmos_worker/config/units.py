"""Sizes in bytes as people write them. No torch here."""

from __future__ import annotations

import re

GIB = 2**30
PREFIXES = "kmgtp"
SIZE = re.compile(
    r"^(?P<number>\d+(\.\d+)?)\s*(?P<prefix>[kmgtp])?(?P<binary>i)?b?$", re.IGNORECASE
)


def parse_size(text: str) -> int:
    """Bytes of ``80GiB``, ``80Gi``, ``80GB`` or ``1.5TB``; GiB is 2^30, GB is 10^9.

    Raises:
        ValueError: not a positive size.
    """
    match = SIZE.match(text.strip())
    size = 0
    if match:
        power = PREFIXES.index(match["prefix"].lower()) + 1 if match["prefix"] else 0
        size = int(float(match["number"]) * (1024 if match["binary"] else 1000) ** power)
    if size <= 0:
        raise ValueError(f"size: got {text!r}; write a number and a unit, such as 80GiB or 80GB")
    return size


def gib(size: int) -> str:
    """Bytes in GiB, one digit."""
    return f"{size / GIB:.1f} GiB"
