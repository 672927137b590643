"""How far a download is, in log lines: bytes, rate, time to go. Where nobody sees a bar, they are all there is."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
MIB = 1 << 20
BLOCK_BYTES = 512
"""Unit of ``st_blocks``."""


class Pace:
    """Bytes over time.

    Args:
        total_bytes: of the whole download; None = unknown.
        done_bytes: what is there before it begins, and does not count for the rate.
    """

    def __init__(self, total_bytes: int | None, done_bytes: int = 0) -> None:
        self._total = total_bytes
        self._before = done_bytes
        self._started = self._logged = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last line is long enough ago; the next question is about a new one."""
        now = time.monotonic()
        if now - self._logged < LOG_INTERVAL_S:
            return False
        self._logged = now
        return True

    def describe(self, done_bytes: int) -> str:
        """``mib=120/14336 mib_per_s=85.2 eta_s=167``; without what is unknown."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (done_bytes - self._before) / seconds
        of = "" if self._total is None else f"/{self._total // MIB}"
        text = f"mib={done_bytes // MIB}{of} mib_per_s={rate / MIB:.1f}"
        if self._total is None or rate <= 0:
            return text
        return f"{text} eta_s={max(0, self._total - done_bytes) / rate:.0f}"


def bytes_in(folder: Path) -> int:
    """Bytes written below a folder; of a file that was made larger than what is in it, only those."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(parent, name))  # noqa: PTH116, PTH118 - thousands of them
            except FileNotFoundError:  # moved while we looked
                continue
            total += min(found.st_size, found.st_blocks * BLOCK_BYTES)
    return total


@contextmanager
def watching_folder(folder: Path, total_bytes: int, what: str) -> Iterator[None]:
    """Log how a folder fills while a library downloads into it.

    Args:
        folder: may not exist yet.
        total_bytes: what it will hold.
        what: for the lines, such as ``repo=owner/name``.
    """
    pace, ended = Pace(total_bytes, bytes_in(folder)), threading.Event()

    def watch() -> None:
        while not ended.wait(LOG_INTERVAL_S):
            logger.info("fetching %s %s", what, pace.describe(bytes_in(folder)))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    logger.info("fetched %s %s", what, pace.describe(bytes_in(folder)))
