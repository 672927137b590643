"""The API of Kueue without its controller: queues can be named, and nothing admits a workload by itself."""

from __future__ import annotations

from harness.build import kueue_crds
from harness.control_plane import kubectl

WAIT = "60s"
CRD = "crd/localqueues.kueue.x-k8s.io"


def install() -> None:
    """Define Kueue's resources."""
    kubectl("apply", "--server-side", f"--filename={kueue_crds()}")
    kubectl("wait", "--for=condition=Established", CRD, f"--timeout={WAIT}")


def remove() -> None:
    """Remove them, with all their objects."""
    gone = ("--ignore-not-found", "--wait", f"--timeout={WAIT}")
    kubectl("delete", f"--filename={kueue_crds()}", *gone)
