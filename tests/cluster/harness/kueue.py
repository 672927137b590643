"""Kueue, which admits workloads when their queue has room: batch Jobs and PyTorchJobs here."""

from __future__ import annotations

from harness.constants import KUEUE_VERSION
from harness.controllers import DeployedController


def controller(version: str = KUEUE_VERSION) -> DeployedController:
    """Kueue of a version as a controller: module, manifests, its default configuration."""
    return DeployedController(
        name="kueue",
        module="sigs.k8s.io/kueue",
        version=f"v{version}",
        package="sigs.k8s.io/kueue/cmd/kueue",
        manifests="config",
        bases=("default",),
        namespace="kueue-system",
        deployment="kueue-controller-manager",
        crd="localqueues.kueue.x-k8s.io",
        certificate="kueue-webhook-server-cert",
    )


def install(version: str = KUEUE_VERSION) -> None:
    """Deploy it, over another version if one is there, and wait until it serves its webhooks."""
    controller(version).install()


def remove() -> None:
    """Remove it with its queues."""
    controller().remove()
