"""Processes that are to make the same content: one does, the others wait."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest

from cosmos_worker.storage import same_work
from cosmos_worker.storage.same_work import only_maker

KEY = "0123456789ab"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_work, "LOCK_WAIT_S", 0.01)


def hold_for_ever(folder: Path, ready: str) -> None:
    """Body of a process that takes the lock and never gives it up."""
    with only_maker(folder, KEY):
        Path(ready).touch()
        signal.pause()


def test_second_waits_until_the_first_is_done_and_no_file_is_left(tmp_path: Path) -> None:
    order, waits = [], threading.Event()

    def second() -> None:
        waits.set()
        with only_maker(tmp_path / "latents", KEY):
            order.append("second")

    thread = threading.Thread(target=second)
    with only_maker(tmp_path / "latents", KEY):
        thread.start()
        assert waits.wait(10)
        thread.join(0.2)
        order.append("first")
    thread.join(10)

    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_other_content_is_not_waited_for(tmp_path: Path) -> None:
    with only_maker(tmp_path / "captions", KEY), only_maker(tmp_path / "captions", "another"):
        assert len(list(tmp_path.iterdir())) == 2


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    context = multiprocessing.get_context("spawn")
    holder = context.Process(target=hold_for_ever, args=(tmp_path / "latents", str(ready)))
    holder.start()
    while not ready.exists():
        holder.join(0.05)
        assert holder.is_alive()
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()

    with only_maker(tmp_path / "latents", KEY):
        pass


def test_block_that_fails_gives_the_lock_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_maker(tmp_path / "latents", KEY):
        raise KeyError

    with only_maker(tmp_path / "latents", KEY):
        pass


def test_volume_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, flags: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_maker(tmp_path / "latents", KEY):
        pass

    assert "going on without a lock" in caplog.text
