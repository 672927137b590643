"""Nodes that come, go and break: eviction by taint, pods of nodes that are gone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from support.fakekube.resources import Object
from support.fakekube.server import evict_pod, set_disruption
from support.fakekube.store import Event, Store, utc_now
from support.fakekube.world import Controller, Key, key_of, set_condition

UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


class NodeController(Controller):
    """Deletes the pods of nodes that do not answer, and those of nodes that do not exist."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A node."""
        if event.resource.key == "nodes":
            yield "", event.obj["metadata"]["name"]

    def sync(self, key: Key) -> None:
        """Look at one node."""
        name = key[1]
        node = self.store.find("nodes", None, name)
        pods = [pod for pod in self.store.list("pods") if pod["spec"].get("nodeName") == name]
        if node is None:
            for pod in pods:
                set_disruption(self.store, pod, "DeletionByPodGC", "PodGC: node no longer exists")
                live = self.store.get("pods", *key_of(pod))
                if live["status"]["phase"] in ("Pending", "Running"):
                    self.store.patch_status("pods", live, phase="Failed")
                self.store.delete("pods", *key_of(pod), grace_s=0)
            return
        taints = node["spec"].get("taints", ())
        lost = next((taint for taint in taints if taint["key"] == UNREACHABLE), None)
        if lost is None:
            return
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                text = "Taint manager: deleting due to NoExecute taint"
                set_disruption(self.store, pod, "DeletionByTaintManager", text)
                self.store.delete("pods", *key_of(pod))


def make_node(
    name: str, allocatable: dict[str, Any], labels: dict[str, str] | None = None
) -> Object:
    """A node that is ready."""
    resources = {"cpu": "16", "memory": "64Gi", "pods": "110", **allocatable}
    resources = {key: str(value) for key, value in resources.items()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [_ready("True", "KubeletReady", "kubelet is posting ready status")],
        },
    }


def _ready(status: str, reason: str, message: str) -> Object:
    return {"type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": utc_now()}  # fmt: skip


def add_node(store: Store, node: Object) -> None:
    """Register a node."""
    made = store.create("nodes", node)
    store.patch_status("nodes", made, **node["status"])


def _change_spec(store: Store, name: str, change: Any) -> None:
    node = copy.deepcopy(store.get("nodes", None, name))
    change(node["spec"])
    store.update("nodes", node)


def cordon(store: Store, name: str) -> None:
    """Let no further pod onto a node."""

    def change(spec: Object) -> None:
        spec["unschedulable"] = True
        spec["taints"] = [*(t for t in spec.get("taints", ()) if t != UNSCHEDULABLE), UNSCHEDULABLE]

    _change_spec(store, name, change)


def uncordon(store: Store, name: str) -> None:
    """Let pods onto a node again."""

    def change(spec: Object) -> None:
        spec.pop("unschedulable", None)
        spec["taints"] = [t for t in spec.get("taints", ()) if t != UNSCHEDULABLE]

    _change_spec(store, name, change)


def drain(store: Store, name: str) -> None:
    """Cordon a node and evict its pods, as ``kubectl drain`` does."""
    cordon(store, name)
    for pod in store.list("pods"):
        if pod["spec"].get("nodeName") == name and "deletionTimestamp" not in pod["metadata"]:
            evict_pod(store, *key_of(pod))


def mark_unreachable(store: Store, name: str) -> None:
    """Set a node's condition Ready to Unknown, as for a silent kubelet; the taint that evicts follows later."""
    text = "Kubelet stopped posting node status."
    node = store.get("nodes", None, name)
    conditions = [_ready("Unknown", "NodeStatusUnknown", text)]
    store.patch_status("nodes", node, conditions=conditions)
    for pod in store.list("pods"):
        if pod["spec"].get("nodeName") == name:
            old = pod["status"].get("conditions", [])
            store.patch_status("pods", pod, conditions=set_condition(old, "Ready", "False", "", ""))


def taint_unreachable(store: Store, name: str, *, is_on: bool) -> None:
    """Add or take away the taint that evicts the pods of a silent node."""

    def change(spec: Object) -> None:
        taints = [taint for taint in spec.get("taints", ()) if taint["key"] != UNREACHABLE]
        spec["taints"] = taints + ([{"key": UNREACHABLE, "effect": "NoExecute"}] if is_on else [])

    _change_spec(store, name, change)
    if not is_on:
        node = store.get("nodes", None, name)
        ready = _ready("True", "KubeletReady", "kubelet is posting ready status")
        store.patch_status("nodes", node, conditions=[ready])
