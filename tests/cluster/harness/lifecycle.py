"""Start and stop the cluster."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from harness import (
    cgroups,
    control_plane,
    kernel_settings,
    namespaces,
    node,
    processes,
    runtime,
)
from harness.certs import certificates
from harness.constants import LINK
from harness.errors import HarnessError
from harness.packages import environment
from harness.paths import kubeconfig, lock, logs, state

OF_ONE_CLUSTER = (
    "etcd",
    "kubelet",
    "log",
    "lib.upper",
    "lib.work",
    "kubectl-cache",
    "logs",
    "volumes",
)
"""Folders that are removed before a new cluster starts. containerd's folder, with the images, stays."""


def continue_mark() -> Path:
    """The file whose presence makes the next start continue with the data of the last cluster."""
    return state() / "kept"


def up(*, with_node: bool = True) -> None:
    """Start the daemons that do not run. A cluster that was stopped or killed starts empty unless its data was kept."""
    if os.geteuid() != 0:
        raise HarnessError("the local cluster makes namespaces and cgroups: run as root")
    environment()  # makes the programs, outside the lock of the running cluster
    with lock("run"):
        continues = bool(processes.pid_of("holder")) or _clear()
        state().mkdir(parents=True, exist_ok=True)
        cgroups.create()
        namespaces.create()
        _offer_kubeconfig()
        if with_node:
            runtime.start(keep_containers=continues)
        control_plane.start()
        if with_node:
            node.start()


def _offer_kubeconfig() -> None:
    source = certificates() / "admin.kubeconfig"
    if not kubeconfig().exists() or kubeconfig().read_bytes() != source.read_bytes():
        shutil.copyfile(source, kubeconfig())
        kubeconfig().chmod(0o600)


def _clear() -> bool:
    """End the processes of a killed session, and delete its data unless it was kept; returns whether it was."""
    _end_processes()
    if continue_mark().exists():
        continue_mark().unlink()
        return True
    for name in OF_ONE_CLUSTER:
        shutil.rmtree(state() / name, ignore_errors=True)
    return False


def down(*, keep: bool = False) -> None:
    """Stop the cluster. Images stay in any case; ``keep`` keeps its objects too."""
    with lock("run"):
        if not processes.names() and not cgroups.leftovers():
            return
        if keep:
            continue_mark().touch()
        _end_processes()
        if not keep:
            for name in OF_ONE_CLUSTER:
                if name != "logs":
                    shutil.rmtree(state() / name, ignore_errors=True)
        left = leftovers()
        if left:
            raise HarnessError(f"the cluster has stopped, but this is left: {'; '.join(left)}")


def _end_processes() -> None:
    """End the controllers that would restart pods, then pods, then kubelet and containerd, then the namespaces."""
    processes.stop("kubelet", "proxy", "dns", "registry", *control_plane.DAEMONS[:-1])
    processes.kill_members(cgroups.PODS)
    processes.stop("containerd", "etcd")
    processes.kill_members(cgroups.TRACKING, spare=[processes.pid_of("holder")])
    processes.stop("holder", grace=0)
    processes.kill_members(cgroups.TRACKING)
    namespaces.remove_cable()
    kernel_settings.restore()
    with suppress(OSError):
        cgroups.remove()


def leftovers() -> list[str]:
    """Processes, cgroups, mounts and links of the cluster that exist now, in words."""
    found = [f"process {pid}" for pid in cgroups.members()]
    found += [f"cgroup {path}" for path in cgroups.leftovers()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if str(state()) in line]
    if Path(f"/sys/class/net/{LINK}").exists():
        found.append(f"network link {LINK}")
    return found


def running() -> dict[str, bool]:
    """Each daemon that was started, and whether it runs."""
    return {name: processes.pid_of(name) is not None for name in processes.names()}


def logs_folder() -> Path:
    """The folder of the daemons' logs."""
    return logs()


def is_running() -> bool:
    """True if a cluster runs, with or without a node."""
    return processes.pid_of("holder") is not None and processes.pid_of("apiserver") is not None
