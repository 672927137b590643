"""Progress of long loops: a bar on a terminal, elsewhere a log line per interval; and a loop over threads.

No torch here.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cosmos_worker.runtime.stall import LoopWatch, stall_seconds

logger = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0


def shows_bars() -> bool:
    """True if standard error is a terminal that can show a bar; one of width 0 or with TERM=dumb cannot."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # it only looks like a terminal
        return False


class Progress:
    """Counts units of work of known total.

    Args:
        name: of the loop, one word.
        total: units in all.
        unit: name of the units, plural.
        interval_s: seconds between log lines where standard error is no terminal.
        is_watched: end this process if no unit is done for :func:`stall_seconds`; then :meth:`close` must be called.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        interval_s: float = LOG_INTERVAL_S,
        *,
        is_watched: bool = False,
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._interval_s = interval_s
        self._started = self._logged = time.monotonic()
        self._bar = self._open_bar() if shows_bars() else None
        self._watch = LoopWatch(name, stall_seconds(os.environ)) if is_watched else None

    def _open_bar(self) -> tqdm[None]:
        from tqdm import tqdm  # reads the switches of the environment, which the command line sets

        return tqdm(total=self.total, unit=self.unit, desc=self.name, disable=False)

    def advance(self, count: int = 1) -> None:
        """Count units that are done."""
        self.done += count
        if self._watch is not None:
            self._watch.beat()
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._logged >= self._interval_s or self.done == self.total:
            self._logged = now
            rate = self.done / max(now - self._started, 1e-6)
            eta_s = (self.total - self.done) / rate
            logger.info(
                "%s %s=%d/%d per_s=%.2f eta_s=%.0f",
                self.name, self.unit, self.done, self.total, rate, eta_s,
            )  # fmt: skip

    def leave_out(self, count: int) -> None:
        """Take units that were done before out of the total; they do not count for the rate."""
        self.total -= count
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()

    def close(self) -> None:
        """Close the bar, if there is one, and end the watch for a loop that hangs."""
        if self._watch is not None:
            self._watch.close()
        if self._bar is not None:
            self._bar.close()


QUEUE = 16
"""Items per thread that are submitted at once, so that a long list is not in memory as futures."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    name: str,
    unit: str,
) -> list[Result]:
    """Call a function on items in threads; after an exception of the function no further item is started.

    Args:
        function: called in ``num_workers`` threads.
        items: its arguments.
        num_workers: calls at the same time.
        name: of the loop, for the progress.
        unit: name of the items, plural.

    Returns:
        The results, in the order of the items.
    """
    progress = Progress(name, len(items), unit, is_watched=True)
    results: list[Result] = []
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix=name)
    try:
        for number, item in enumerate(items, start=1):
            pending.append(pool.submit(function, item))
            while pending and (number == len(items) or len(pending) > QUEUE * num_workers):
                results.append(pending.popleft().result())
                progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return results
