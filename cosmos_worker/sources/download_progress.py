"""Progress of downloads: a bar on a terminal, elsewhere log lines with bytes, rate and remaining time."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cosmos_worker.runtime.progress import shows_bars

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0
MIB = 1 << 20
BLOCK_BYTES = 512
"""Unit of ``st_blocks``."""


class TransferRate:
    """Rate of a transfer, which is told by a bar on a terminal, elsewhere by log lines.

    Args:
        what: names the download in the lines, such as ``url=https://...``.
        total_bytes: of the whole download; None = unknown.
        done_bytes: bytes that are there before it begins; they do not count for the rate.
    """

    def __init__(self, what: str, total_bytes: int | None, done_bytes: int = 0) -> None:
        self._what, self._total = what, total_bytes
        self._bar = _open_bar(what, total_bytes, done_bytes) if shows_bars() else None
        self._before = done_bytes
        self._started = self._logged = time.monotonic()

    def report(self, done_bytes: int) -> None:
        """Move the bar, or log a line if the last one is :data:`LOG_INTERVAL_S` old."""
        if self._bar is not None:
            self._bar.update(done_bytes - self._bar.n)
            return
        now = time.monotonic()
        if now - self._logged >= LOG_INTERVAL_S:
            self._logged = now
            logger.info("fetching %s %s", self._what, self.describe(done_bytes))

    def close(self) -> None:
        """Close the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()

    def describe(self, done_bytes: int) -> str:
        """``mib=120/14336 mib_per_s=85.2 eta_s=167``; without fields that are unknown."""
        seconds = time.monotonic() - self._started
        return describe_rate(self._total, self._before, done_bytes, seconds)


def describe_rate(total: int | None, before: int, done: int, seconds: float) -> str:
    """Bytes, rate and remaining time of a transfer; without fields that are unknown.

    Args:
        total: bytes of all; None = unknown.
        before: bytes that were there when it began.
        done: bytes that are there now.
        seconds: time since it began.
    """
    rate = (done - before) / max(seconds, 1e-6)
    of = "" if total is None else f"/{total // MIB}"
    text = f"mib={done // MIB}{of} mib_per_s={rate / MIB:.1f}"
    if total is None or rate <= 0:
        return text
    return f"{text} eta_s={max(0, total - done) / rate:.0f}"


def _open_bar(what: str, total_bytes: int | None, done_bytes: int) -> tqdm[None]:
    from tqdm import tqdm  # reads the switches of the environment, which the command line sets

    return tqdm(
        total=total_bytes,
        initial=done_bytes,
        unit="B",
        unit_scale=True,
        desc=what,
        dynamic_ncols=True,
        disable=False,
    )


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
    """Log the size of a folder while a library downloads into it, and shows its own bars on a terminal.

    Args:
        folder: may not exist yet.
        total_bytes: size of the complete folder.
        what: names the download in the lines, such as ``repo=owner/name``.
    """
    before, ended = bytes_in(folder), threading.Event()
    started, is_told = time.monotonic(), shows_bars()

    def describe() -> str:
        seconds = time.monotonic() - started
        return describe_rate(total_bytes, before, bytes_in(folder), seconds)

    def log_size() -> None:
        while not is_told and not ended.wait(LOG_INTERVAL_S):
            logger.info("fetching %s %s", what, describe())

    thread = threading.Thread(target=log_size, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    logger.info("fetched %s %s", what, describe())
