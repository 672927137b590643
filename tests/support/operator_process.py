"""The real operator as a process beside the tests, with an API server that a kubeconfig names."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SETTINGS: dict[str, Any] = {
    "pollSeconds": 0.3,
    "progressSeconds": 0,
    "retryBackoffSeconds": 0.2,
    "queueGraceSeconds": 1,
    "sidecarGraceSeconds": 1,
    "workerImage": "cosmos-worker:test",
    "workerCpuImage": "cosmos-worker-cpu:test",
    "healthPort": 0,
    "metricsPort": 0,
}
"""Settings of an operator with short intervals."""
BEGINS_S = 30
ENDS_S = 10


class OperatorProcess:
    """An operator that can be started, killed and stopped.

    Args:
        folder: for its settings and its log.
        kubeconfig: of the API server.
        settings: beside SETTINGS.
    """

    def __init__(self, folder: Path, kubeconfig: Path, **settings: Any) -> None:
        self._log = folder / "operator.log"
        self._settings = folder / "settings.yaml"
        self._settings.write_text(yaml.safe_dump(SETTINGS | settings), encoding="utf-8")
        self._kubeconfig = kubeconfig
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it does not run."""
        if self._process is not None:
            return
        module = [sys.executable, "-m", "cosmos_operator.controller.manager"]
        options = ["--settings", str(self._settings), "--kubeconfig", str(self._kubeconfig)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*module, *options], stdout=log, stderr=log)

    def kill(self) -> bool:
        """End it without warning; False if it does not run."""
        if self._process is None:
            return False
        self._process.kill()
        self._process.wait()
        self._process = None
        return True

    def stop(self) -> None:
        """End it in order; waits until it handles signals, since an earlier one would kill it."""
        if self._process is None:
            return
        end = time.monotonic() + BEGINS_S
        while "delivered all existing objects" not in self._log.read_text(encoding="utf-8"):
            assert time.monotonic() < end, f"the operator did not begin\n{self.log()}"
            time.sleep(0.05)
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(ENDS_S) == 0, self.log()
        self._process = None

    def log(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        return "\n".join(lines[-30:])
