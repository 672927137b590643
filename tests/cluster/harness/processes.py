"""The cluster's daemons: started in its cgroup and namespaces, found again by a later command, stopped by number."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from harness import cgroups
from harness.errors import HarnessError
from harness.paths import logs, state

JOIN = 'echo $$ > "$0" && exec "$@"'
"""Shell command that enters a cgroup and then becomes the program, so that all children are in the cgroup."""


def _daemon_file(name: str) -> Path:
    return state() / "daemons" / f"{name}.json"


def _started(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks; None if it has ended."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # if it is a child of ours, a dead one is no zombie after this
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def pid_of(name: str) -> int | None:
    """The process number of a running daemon. A number that another process has now does not count."""
    try:
        record = json.loads(_daemon_file(name).read_text())
    except FileNotFoundError:
        return None
    pid = int(record["pid"])
    return pid if _started(pid) == record["started"] else None


def names() -> list[str]:
    """The daemons that were started, running or not."""
    return sorted(path.stem for path in (state() / "daemons").glob("*.json"))


def inside(command: Sequence[str | Path]) -> list[str]:
    """The command line that runs a program in the cluster's network and mount namespaces."""
    holder = pid_of("holder")
    words = [str(word) for word in command]
    return ["nsenter", f"--target={holder}", "--net", "--mount", "--", *words]


def start(
    name: str,
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    in_cluster: bool = True,
) -> None:
    """Start a daemon, unless it runs."""
    if pid_of(name):
        return
    words = inside(command) if in_cluster else [str(word) for word in command]
    logs().mkdir(parents=True, exist_ok=True)
    with (logs() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", JOIN, str(cgroups.DAEMONS / "cgroup.procs"), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    process.returncode = 0  # it outlives this command; Popen need not warn about it
    file = _daemon_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pid": process.pid, "started": _started(process.pid)}))


def stop(*daemons: str, grace: float = 3) -> None:
    """Ask daemons to stop, together, and end those that have not after ``grace`` seconds."""
    for name in daemons:
        send(pid_of(name), signal.SIGTERM)
    end = time.monotonic() + grace
    while any(pid_of(name) for name in daemons) and time.monotonic() < end:
        time.sleep(0.05)
    for name in daemons:
        send(pid_of(name), signal.SIGKILL)
        _daemon_file(name).unlink(missing_ok=True)


def send(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_members(folder: Path, spare: Sequence[int | None] = (), timeout: float = 15) -> None:
    """End every process in a cgroup but for the spared ones, and wait until the kernel has taken them out of it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        pids = [pid for pid in cgroups.members(folder) if pid not in spare]
        if not pids:
            return
        for pid in pids:
            if _started(pid):
                send(pid, signal.SIGKILL)
        time.sleep(0.05)


def wait_ready(name: str, ready: Callable[[], bool], timeout: float) -> None:
    """Wait until a daemon is ready; the error if it ends, or is not ready in time, has the end of its log."""
    end = time.monotonic() + timeout
    while not ready():
        if pid_of(name) is None:
            raise HarnessError(f"{name} ended. {tail(name)}")
        if time.monotonic() > end:
            raise HarnessError(f"{name} is not ready after {timeout:g} s. {tail(name)}")
        time.sleep(0.1)


def tail(name: str, lines: int = 15) -> str:
    """The end of a daemon's log."""
    path = logs() / f"{name}.log"
    if not path.exists():
        return f"{path} does not exist"
    text = path.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([f"{path} ends with:", *text])
