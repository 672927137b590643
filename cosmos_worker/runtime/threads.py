"""The same function on many items, in threads, with progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from cosmos_worker.runtime.progress import Progress

QUEUE = 16
"""Items per thread that wait for it: memory holds results, not what is still to do."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    name: str,
    unit: str,
) -> list[Result]:
    """Results in the order of the items; an exception of the function ends it without starting further items.

    Args:
        function: called in ``num_workers`` threads.
        items: its arguments.
        num_workers: calls at the same time.
        name: what is being done, for the progress.
        unit: name of the items, plural.
    """
    progress = Progress(name, len(items), unit)
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
