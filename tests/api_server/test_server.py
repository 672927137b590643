"""The API server of the tests ends with them, and a run without its programs names the tests left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time, pathlib
from harness import api_server
with api_server.running(pathlib.Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""


def children(pid: int) -> list[int]:
    """Child processes of a process."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] != "Z"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests/cluster"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


@pytest.mark.api_server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_ends_with_a_process_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"https://127.0.0.1:")
        etcd, kube_api_server = children(holder.pid)
        holder.send_signal(number)
        holder.wait()
    end = time.monotonic() + 5
    while runs(etcd) or runs(kube_api_server):
        assert time.monotonic() < end
        time.sleep(0.05)


def run_without_programs(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "api_server"]
    return subprocess.run(
        [*command, *options, "tests/api_server/test_apply.py"],
        cwd=ROOT,
        env=environment(COSMOS_CLUSTER_CACHE=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )


def test_tests_without_programs_are_left_out_in_one_line(tmp_path: Path) -> None:
    result = run_without_programs(tmp_path)

    assert result.returncode == 0, result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "api-server" in line]
    assert "tests of the real API server" in line
    assert "kube-apiserver" in line
    assert "make api-server-programs" in line


def test_missing_programs_are_an_error_where_they_are_required(tmp_path: Path) -> None:
    result = run_without_programs(tmp_path, "--require-api-server")

    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "cannot run without kube-apiserver" in result.stderr
