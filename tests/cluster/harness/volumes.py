"""Volumes that several pods write at once, with their content in a folder of this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness import processes
from harness.commands import run
from harness.constants import WORKER_UID
from harness.control_plane import kubectl
from harness.paths import state

DEFAULT_SIZE = "20Gi"
MODE = 0o2775
"""As the kubelet leaves a volume that it sets fsGroup on (it does not for hostPath): the group's bit makes the folders
that it makes for subPath, as root, the group's too."""


def make_persistent_volume(
    name: str,
    *,
    namespace: str | None = None,
    claim: str | None = None,
    storage_class: str = "",
    size: str = DEFAULT_SIZE,
    access_modes: Sequence[str] = ("ReadWriteMany",),
    limit_mib: int | None = None,
) -> Path:
    """Make a PersistentVolume, reserved for one claim if that is named; returns its folder on this machine.

    Args:
        name: of the PersistentVolume.
        namespace: of the claim it is reserved for.
        claim: the claim it is reserved for.
        storage_class: which class of claims may take it; "" for those that name none.
        size: what it says it holds; nothing enforces it.
        access_modes: what it says it allows.
        limit_mib: make it a disk of this size, in memory, for tests that fill it.
    """
    folder = state() / "volumes" / name
    _remove_leftover(name, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if limit_mib is not None:
        options = f"size={limit_mib}m,uid={WORKER_UID},gid={WORKER_UID},mode={MODE:o}"
        run(processes.inside(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]))
    else:
        os.chown(folder, WORKER_UID, WORKER_UID)
        folder.chmod(MODE)
    spec: dict[str, object] = {
        "capacity": {"storage": size},
        "accessModes": list(access_modes),
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": storage_class,
        "hostPath": {"path": str(folder), "type": "Directory"},
    }
    if claim is not None:
        spec["claimRef"] = {"namespace": namespace, "name": claim}
    _apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    )
    if (
        limit_mib is not None
    ):  # mounted in the cluster's namespace only: seen through the process that holds it
        return Path(f"/proc/{processes.pid_of('holder')}/root{folder}")
    return folder


def _remove_leftover(name: str, folder: Path) -> None:
    """Remove what an earlier test left: files, and a volume whose claim is gone, which would never take another."""
    phase = ("--ignore-not-found", "--output=jsonpath={.status.phase}")
    found = kubectl("get", "persistentvolume", name, *phase)
    if found == "Released":
        kubectl("delete", "persistentvolume", name)
    if found in ("", "Released") and folder.exists():
        run(processes.inside(["sh", "-c", 'umount "$1" 2>/dev/null || true', "sh", str(folder)]))
        shutil.rmtree(folder)


def make_claim(
    namespace: str,
    name: str,
    *,
    size: str = DEFAULT_SIZE,
    access_modes: Sequence[str] = ("ReadWriteMany",),
    limit_mib: int | None = None,
) -> Path:
    """Make a claim with a volume of its own, and wait until it is bound; returns the folder on this machine."""
    volume = f"{namespace}-{name}"
    folder = make_persistent_volume(
        volume,
        namespace=namespace,
        claim=name,
        size=size,
        access_modes=access_modes,
        limit_mib=limit_mib,
    )
    spec = {
        "accessModes": list(access_modes),
        "storageClassName": "",
        "volumeName": volume,
        "resources": {"requests": {"storage": size}},
    }
    metadata = {"namespace": namespace, "name": name}
    _apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    )
    where = (f"--namespace={namespace}", f"persistentvolumeclaim/{name}")
    kubectl("wait", *where, "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    return folder


def _apply(manifest: dict[str, object]) -> None:
    kubectl("apply", "--server-side", "--filename=-", text_in=json.dumps(manifest))
