"""Processes inside pods, seen and stopped from outside, as a crash or the kernel would."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import cgroups
from harness.control_plane import kubectl
from harness.errors import HarnessError
from harness.processes import send


@dataclass(frozen=True)
class ContainerProcess:
    """A process of a container, with its number on this machine."""

    pid: int
    command: tuple[str, ...]
    environment: Mapping[str, str]


def container_processes(
    namespace: str, pod: str, container: str | None = None
) -> list[ContainerProcess]:
    """The processes of a pod's running containers, or of one of them; the oldest first."""
    found = json.loads(kubectl("get", "pod", pod, f"--namespace={namespace}", "--output=json"))
    status = found.get("status", {})
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    processes = []
    for item in statuses:
        identity = item.get("containerID", "").rpartition("//")[2]
        if identity and "running" in item["state"] and container in (None, item["name"]):
            for folder in cgroups.PODS.glob(f"**/{identity}"):
                processes += [p for pid in cgroups.members(folder) if (p := _describe(pid))]
    return sorted(processes, key=lambda process: process.pid)


def _describe(pid: int) -> ContainerProcess | None:
    folder = Path(f"/proc/{pid}")
    try:
        command = folder.joinpath("cmdline").read_bytes().decode(errors="replace")
        environment = folder.joinpath("environ").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    pairs = (item.partition("=") for item in environment.split("\0") if item)
    return ContainerProcess(
        pid, tuple(command.rstrip("\0").split("\0")), {name: value for name, _, value in pairs}
    )


def kill_container_process(
    namespace: str,
    pod: str,
    *,
    local_rank: int | None = None,
    command: str | None = None,
    container: str | None = None,
    number: signal.Signals = signal.SIGKILL,
) -> int:
    """Send a signal to the oldest process of a pod that fits; returns its number on this machine.

    Args:
        namespace: of the pod.
        pod: its name.
        local_rank: only the process that torchrun gave this LOCAL_RANK.
        command: only a process with this text in its command line.
        container: only processes of this container.
        number: the signal.
    """
    processes = container_processes(namespace, pod, container)
    for process in processes:
        ranked = local_rank is None or process.environment.get("LOCAL_RANK") == str(local_rank)
        if ranked and (command is None or command in " ".join(process.command)):
            send(process.pid, number)
            return process.pid
    listed = "; ".join(f"{p.pid} {' '.join(p.command)}" for p in processes) or "none"
    raise HarnessError(
        f"pod {namespace}/{pod} runs no process with local rank {local_rank} and {command!r} in its command line; "
        f"it runs: {listed}"
    )
