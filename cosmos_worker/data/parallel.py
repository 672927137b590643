"""The same function on many items, in threads, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cosmos_worker.progress import Progress

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
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix=name)
    try:
        for result in pool.map(function, items):
            results.append(result)
            progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
        progress.close()
    return results
