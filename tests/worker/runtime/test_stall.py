"""Processes without progress: noticed, and ended with their stacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cosmos_worker.errors import ConfigError
from cosmos_worker.runtime import stall
from cosmos_worker.runtime.outcome import OUTCOMES_VARIABLE, PositionFile
from cosmos_worker.runtime.stall import (
    StallWatch,
    beat,
    beating_while_files_grow,
    collective_timeout,
    stall_seconds,
)

STUCK_DECODER = """
import time
from cosmos_worker.runtime.progress import map_in_threads
from cosmos_worker.runtime.stage_process import configure_logging
configure_logging()
def decode(clip):
    if clip == 3:
        time.sleep(60)
map_in_threads(decode, range(5), 2, "clips", "clips")
"""


class Clock:
    """Seconds that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def pass_polling(self, watch: StallWatch, seconds: float) -> bool:
        """Let time pass while the launcher looks each second; returns what it sees at the end."""
        found = False
        for _ in range(int(seconds)):
            self.now += 1
            found = watch.is_stalled()
        return found


def test_processes_that_write_no_position_for_too_long_are_stalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    watch = StallWatch(tmp_path, stall_s=30)
    assert not clock.pass_polling(watch, 100), "they may take any time until the first step"
    ranks = [PositionFile(tmp_path / f"position-{rank}.json") for rank in range(2)]
    for rank in ranks:
        rank.write(1, None)

    assert not clock.pass_polling(watch, 29)
    ranks[1].write(2, None)
    assert not clock.pass_polling(watch, 29)
    assert clock.pass_polling(watch, 3)


def test_time_in_which_the_launcher_did_not_run_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    PositionFile(tmp_path / "position-0.json").write(1, None)
    watch = StallWatch(tmp_path, stall_s=30)
    clock.pass_polling(watch, 5)

    clock.now += 3600

    assert not watch.is_stalled()
    assert clock.pass_polling(watch, 31)


def test_beat_is_progress_between_two_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OUTCOMES_VARIABLE, str(tmp_path))
    beat()
    assert not list(tmp_path.iterdir()), "before the first step there is nothing to tell"
    path = tmp_path / "position-0.json"
    PositionFile(path).write(7, 4)
    os.utime(path, (1.0, 1.0))

    beat()

    assert path.stat().st_mtime > 1.0
    assert json.loads(path.read_text()) == {"step": 7, "checkpoint": 4}


def test_files_that_grow_are_progress_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []
    monkeypatch.setattr(stall, "GROWTH_POLL_S", 0.01)
    monkeypatch.setattr(stall, "beat", lambda: beats.append(time.monotonic()))

    with beating_while_files_grow(tmp_path):
        while not beats:
            time.sleep(0.01)
        time.sleep(0.1)
        quiet = len(beats)
        (tmp_path / "shard").write_bytes(b"x" * 10)
        while len(beats) == quiet:
            time.sleep(0.01)

    assert quiet == 1


def test_stuck_decoder_ends_the_stage_with_its_stack_in_the_log(tmp_path: Path) -> None:
    message = tmp_path / "termination.json"
    ended = subprocess.run(
        [sys.executable, "-c", STUCK_DECODER],
        env={**os.environ, "COSMOS_STALL_SECONDS": "1", "COSMOS_TERMINATION_LOG": str(message)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 74, ended.stderr
    assert "in decode" in ended.stderr
    assert "the loop clips" in ended.stderr
    assert json.loads(message.read_text())["reason"] == "Stalled"


def test_collectives_wait_longer_than_the_watch() -> None:
    assert collective_timeout({}) == timedelta(minutes=30)
    assert collective_timeout({"COSMOS_STALL_SECONDS": "7200"}) == timedelta(minutes=125)
    with pytest.raises(ConfigError, match="COSMOS_STALL_SECONDS: got '0'; give whole seconds"):
        stall_seconds({"COSMOS_STALL_SECONDS": "0"})


def test_state_of_a_stopped_process_is_told_and_it_writes_its_stack() -> None:
    program = (
        "import time\nfrom cosmos_worker.runtime.stall import answer_with_stacks\nanswer_with_stacks()\n"
        "def work():\n    print('ready', flush=True)\n    time.sleep(60)\nwork()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RANK": "5"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    states = stall.ask_for_stacks([process.pid])

    assert states == "rank 5 T (stopped)"
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in range(3)]
    process.kill()
    process.communicate()
    assert any("in work" in line for line in lines)
