"""The operator as a black box: a process with its processor time, its memory, its metrics, and its requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

ENDS_S = 30


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process."""

    now_mb: float
    peak_mb: float
    """Highest value since its start."""


class OperatorProcess:
    """An operator that can be started and stopped again and again.

    Args:
        folder: for its settings and its log.
        kubeconfig: of the API server.
        checkout: folder of the project whose operator it is.
    """

    def __init__(self, folder: Path, kubeconfig: Path, checkout: Path) -> None:
        self._folder, self._kubeconfig, self._checkout = folder, kubeconfig, checkout
        self._health_port, self._metrics_port = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        settings = {"healthPort": self._health_port, "metricsPort": self._metrics_port}
        self._settings = folder / "settings.yaml"
        self._settings.write_text(yaml.safe_dump(settings), encoding="utf-8")

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None, "the operator has been started"
        return self._process.pid

    def start(self) -> None:
        """Start it."""
        self._starts += 1
        options = ["--settings", str(self._settings), "--kubeconfig", str(self._kubeconfig)]
        code = "from cosmos_operator.controller.manager import main; raise SystemExit(main())"
        paths = [str(self._checkout / "operator"), str(self._checkout)]
        with (self._folder / f"operator-{self._starts}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *options],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # where groups share processors, it has a share of its own
            )

    async def stop(self) -> None:
        """Stop it in order."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def check(self) -> None:
        """Fail if it has ended by itself."""
        assert self._process is not None, "the operator has been started"
        if self._process.poll() is not None:
            log = self._folder / f"operator-{self._starts}.log"
            lines = log.read_text(encoding="utf-8").splitlines()[-20:]
            text = "\n".join(lines)
            raise RuntimeError(f"the operator ended with {self._process.returncode}:\n{text}")

    async def is_ready(self) -> bool:
        """True once it says so."""
        self.check()
        return await _fetch(f"http://127.0.0.1:{self._health_port}/readyz") is not None

    async def metrics(self) -> dict[str, float]:
        """Its metrics without labels; empty while it serves none."""
        text = await _fetch(f"http://127.0.0.1:{self._metrics_port}/metrics") or ""
        lines = [line for line in text.splitlines() if line and line[0] != "#" and "{" not in line]
        return {name: float(value) for name, value in (line.split(" ", 1) for line in lines)}

    def processor_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> Memory:
        """Its resident memory."""
        values = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                values[name] = int(rest.split()[0]) / 1024
        return Memory(values["VmRSS"], values["VmHWM"])


class Requests:
    """The operator's requests, from the API server's audit log.

    Args:
        audit_log: of the API server, with nobody else's requests.
    """

    def __init__(self, audit_log: Path) -> None:
        self._log = audit_log
        self._position = 0
        self._seen: set[str] = set()

    def skip(self) -> None:
        """Leave out what has been asked so far."""
        self.read()

    def read(self) -> Counter[str]:
        """Number of requests since the last call, by verb and resource, such as ``get pods/log``."""
        found: Counter[str] = Counter()
        with self._log.open("rb") as stream:
            stream.seek(self._position)
            data = stream.read()
        end = data.rfind(b"\n") + 1
        self._position += end
        for line in data[:end].splitlines():
            event = json.loads(line)
            if event["auditID"] not in self._seen:  # a watch has two lines
                found[_title(event)] += 1
            if event["verb"] == "watch":
                self._seen.add(event["auditID"])
        return found


def _title(event: dict[str, object]) -> str:
    target = event.get("objectRef")
    if not isinstance(target, dict):
        return f"{event['verb']} {str(event['requestURI']).partition('?')[0]}"
    parts = [target.get("resource", event["requestURI"]), target.get("subresource")]
    return f"{event['verb']} {'/'.join(str(part) for part in parts if part)}"


async def _fetch(url: str) -> str | None:
    timeout = aiohttp.ClientTimeout(total=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url) as response,
        ):
            return await response.text() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError):
        return None


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
