"""Work in threads with progress: order of the results, counted items, an end without delay."""

import logging
import threading

import pytest

from cosmos_worker.runtime.progress import map_in_threads


def test_results_have_the_order_of_the_items_and_calls_run_at_the_same_time():
    meeting = threading.Barrier(3, timeout=20)

    def double(item: int) -> int:
        meeting.wait()  # passes only with three calls at a time
        return 2 * item

    assert map_in_threads(double, range(6), 3, "double", "items") == [0, 2, 4, 6, 8, 10]


def test_progress_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        map_in_threads(str, [1, 2], 1, "write", "words")

    assert "write words=2/2 per_s=" in caplog.text


def test_an_error_starts_no_further_items():
    started: list[int] = []

    def fail(item: int) -> None:
        started.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        map_in_threads(fail, range(10_000), 1, "fail", "items")

    assert len(started) < 10_000
