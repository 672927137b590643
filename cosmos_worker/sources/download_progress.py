"""Progress of downloads in log lines: bytes, rate and remaining time."""

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


class TransferRate:
    """Rate of a transfer, and the times at which its progress is logged.

    Args:
        total_bytes: of the whole download; None = unknown.
        done_bytes: bytes that are there before it begins; they do not count for the rate.
    """

    def __init__(self, total_bytes: int | None, done_bytes: int = 0) -> None:
        self._total = total_bytes
        self._before = done_bytes
        self._started = self._logged = time.monotonic()

    def is_due(self) -> bool:
        """True if a line is due, :data:`LOG_INTERVAL_S` after the last one that was."""
        now = time.monotonic()
        if now - self._logged < LOG_INTERVAL_S:
            return False
        self._logged = now
        return True

    def describe(self, done_bytes: int) -> str:
        """``mib=120/14336 mib_per_s=85.2 eta_s=167``; without fields that are unknown."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        rate = (done_bytes - self._before) / seconds
        of = "" if self._total is None else f"/{self._total // MIB}"
        text = f"mib={done_bytes // MIB}{of} mib_per_s={rate / MIB:.1f}"
        if self._total is None or rate <= 0:
            return text
        return f"{text} eta_s={max(0, self._total - done_bytes) / rate:.0f}"


def bytes_in(folder: Path) -> int:
    """Bytes written below a folder; holes of sparse files do not count."""
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
def logging_growth(folder: Path, total_bytes: int, what: str) -> Iterator[None]:
    """Log the size of a folder while a library downloads into it.

    Args:
        folder: may not exist yet.
        total_bytes: size of the complete folder.
        what: names the download in the lines, such as ``repo=owner/name``.
    """
    rate, ended = TransferRate(total_bytes, bytes_in(folder)), threading.Event()

    def log_size() -> None:
        while not ended.wait(LOG_INTERVAL_S):
            logger.info("fetching %s %s", what, rate.describe(bytes_in(folder)))

    thread = threading.Thread(target=log_size, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    logger.info("fetched %s %s", what, rate.describe(bytes_in(folder)))
