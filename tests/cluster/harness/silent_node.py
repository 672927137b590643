"""A node that exists in the API only: pods are scheduled on it and never start."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from harness.control_plane import kubectl

BEAT_S = 5
"""Interval of heartbeats, well below the time after which a node without them counts as lost."""
ROOM = {"cpu": "8", "memory": "32Gi", "pods": "20"}
LEASES = "--namespace=kube-node-lease"


@contextmanager
def silent_node(name: str, resources: dict[str, str], *, takes_pods: bool = True) -> Iterator[None]:
    """Register the node, and keep it ready, for the block.

    Args:
        name: of the node.
        resources: that it offers beside some processors and memory, such as ``{"nvidia.com/gpu": "4"}``.
        takes_pods: whether pods are placed there.
    """
    ended = threading.Event()
    room = {**ROOM, **resources}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Silent",
        "message": "says that it is ready",
    }
    labels = {"kubernetes.io/hostname": name}
    node: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": not takes_pods},
    }
    _apply(node)
    status = {"capacity": room, "allocatable": room, "conditions": [ready]}
    _apply({**node, "status": status}, "--subresource=status")
    beats = threading.Thread(target=_beat, args=(name, ended), daemon=True)
    beats.start()
    try:
        kubectl("wait", "--for=condition=Ready", f"node/{name}", "--timeout=30s")
        yield
    finally:
        ended.set()
        beats.join()
        kubectl("delete", "node", name)
        kubectl("delete", "lease", name, LEASES, "--ignore-not-found")
        where = ("--all-namespaces", f"--field-selector=spec.nodeName={name}")
        kubectl("delete", "pods", *where, "--force", "--grace-period=0")


def _beat(name: str, ended: threading.Event) -> None:
    while True:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
        }
        _apply(lease)
        if ended.wait(BEAT_S):
            return


def _apply(manifest: dict[str, object], *options: str) -> None:
    kubectl("apply", "--server-side", *options, "--filename=-", text_in=json.dumps(manifest))
