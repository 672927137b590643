"""Progress bars appear only on terminals that can show them."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

PROGRAM = """
from cosmos_worker.runtime.progress import Progress
from cosmos_worker.runtime.stage_process import configure_logging, disable_library_bars
configure_logging()
disable_library_bars()
from tqdm import tqdm
for _ in tqdm(range(2), desc="foreign"):
    pass
progress = Progress("decode", 2, "clips")
progress.advance(2)
progress.close()
"""
SWITCHES = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS")
"""Variables that a command run by an earlier test of this process may have set."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in SWITCHES}
LINE = "INFO rank=0 cosmos_worker.runtime.progress decode clips=2/2 per_s="


def run_in_terminal(columns: int, term: str = "xterm") -> str:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**ENVIRONMENT, "TERM": term}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=follower, env=environment)
    os.close(follower)
    seen = b""
    try:
        while piece := os.read(leader, 4096):
            seen += piece
    except OSError:  # Linux: the other side is closed
        pass
    os.close(leader)
    assert process.wait() == 0
    return seen.decode()


def test_terminal_shows_a_bar_and_no_lines() -> None:
    seen = run_in_terminal(100)

    assert "decode: 100%" in seen
    assert LINE not in seen


def test_terminal_of_no_width_gets_lines() -> None:
    seen = run_in_terminal(0)

    assert LINE in seen
    assert "%" not in seen


def test_terminal_that_can_only_write_lines_gets_lines() -> None:
    seen = run_in_terminal(100, "dumb")

    assert LINE in seen
    assert "%" not in seen


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_pod_gets_lines_and_no_bar_of_anybody(unbuffered: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=True,
    )

    assert LINE in result.stderr
    assert "%" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
