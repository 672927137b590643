"""A Kubernetes cluster in a thread: API server, controllers, nodes whose pods run a simulated worker.

It is there so that whole jobs run in seconds and so that faults can be injected into them: calls that are refused,
watches that break, nodes, pods and processes that die. It grows by such faults only. It takes every object as it is
and applies a status as its only owner would: what an API server refuses, fills in, drops and merges is tested on a
real one (tests/api_server), and what both have in common on both (tests/fakekube/test_contract*.py).

``FakeKube`` is what tests use; everything it offers may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from support.fakekube import nodes, server
from support.fakekube.cluster import SimulatedCluster
from support.fakekube.errors import ApiError
from support.fakekube.server import Call, Rule
from support.fakekube.sidecars import Sidecar
from support.fakekube.training_operator import INIT_IMAGE
from support.fakekube.world import Disk, Fault, Timing

__all__ = ["ApiError", "Call", "FakeKube", "Fault", "Sidecar", "Timing"]


class FakeKube(SimulatedCluster):
    """The simulated cluster, and all that may go wrong in it."""

    # --- the API server ------------------------------------------------------------------------

    def refuse(
        self,
        matches: Callable[[Call], bool],
        code: int = 503,
        reason: str = "ServiceUnavailable",
        message: str = "the server is currently unable to handle the request",
        times: int | None = None,
    ) -> Rule:
        """Answer the next calls that match with an error; ``forgive`` ends it."""
        rule = Rule(matches, ApiError(code, reason, message), times)
        self.call(lambda: self.api.rules.append(rule))
        return rule

    def forgive(self, rule: Rule) -> None:
        """End what ``refuse`` began."""
        self.call(lambda: self.api.rules.remove(rule))

    def drop_watches(self, *, forget: bool = False) -> None:
        """Close all watches; with forget, no version of before can be watched from."""

        def drop() -> None:
            if forget:
                self.store.forget_history()
            self.api.watches.drop()

        self.call(drop)

    def calls(self, verb: str = "", plural: str = "", subresource: str = "") -> list[Call]:
        """Requests so far."""
        found = self.call(lambda: list(self.api.calls))
        return [
            call
            for call in found
            if verb in ("", call.verb)
            and plural in ("", call.resource.plural)
            and subresource in ("", call.subresource)
        ]

    def set_quota(self, queue: str, gpus: int) -> None:
        """GPUs that a LocalQueue may use."""
        self.call(lambda: self.kueue.quota.__setitem__(queue, gpus))

    def manage(self, kind: str) -> None:
        """Let Kueue manage the workloads of a kind such as ``pytorchjobs.kubeflow.org``, beside Jobs."""
        self.call(lambda: self.kueue.integrations.add(kind))

    # --- nodes and pods ------------------------------------------------------------------------

    def set_nodes(
        self,
        names: Mapping[str, Mapping[str, Any]],
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Have exactly these nodes.

        Args:
            names: name → allocatable, such as ``{"nvidia.com/gpu": 8}``.
            labels: name → labels, beside kubernetes.io/hostname.
        """

        def change() -> None:
            for node in self.store.list("nodes"):
                self.store.delete("nodes", None, node["metadata"]["name"])
            for name, allocatable in names.items():
                own = dict((labels or {}).get(name, {}))
                nodes.add_node(self.store, nodes.make_node(name, dict(allocatable), own))
                self.kubelet.lost.discard(name)
                self.world.logs.unreachable.discard(name)

        self.call(change)

    def drain(self, node: str) -> None:
        """Cordon a node and evict its pods."""
        self.call(lambda: nodes.drain(self.store, node))

    def uncordon(self, node: str) -> None:
        """Let pods onto a node again."""
        self.call(lambda: nodes.uncordon(self.store, node))

    def lose_node(self, node: str) -> None:
        """A node dies: first it is silent, then its pods are marked for deletion, and there they stay."""

        def lose() -> None:
            self.kubelet.lose(node)
            nodes.mark_unreachable(self.store, node)
            taint = lambda: nodes.taint_unreachable(self.store, node, is_on=True)  # noqa: E731
            self._loop.call_later(self.world.timing.unreachable_s, taint)

        self.call(lose)

    def restore_node(self, node: str) -> None:
        """A dead node comes back."""

        def restore() -> None:
            nodes.taint_unreachable(self.store, node, is_on=False)
            self.kubelet.restore(node)

        self.call(restore)

    def delete_node(self, node: str) -> None:
        """A node is taken out of the cluster, with what ran on it."""

        def remove() -> None:
            self.kubelet.lose(node)
            self.store.delete("nodes", None, node)

        self.call(remove)

    def evict_for_memory(self, pod: str, namespace: str = "default") -> None:
        """The kubelet evicts a pod because its node runs out of memory."""

        def evict() -> None:
            text = "The node was low on resource: memory."
            found = self.store.get("pods", namespace, pod)
            server.set_disruption(self.store, found, "TerminationByKubelet", text)
            self.kubelet.evict(found, "Evicted", text)

        self.call(evict)

    def kill_process(self, pod: str, rank: int = 0, namespace: str = "default") -> None:
        """SIGKILL one training process in a pod; the worker notices and ends."""

        def kill() -> None:
            found = self.store.get("pods", namespace, pod)
            text = f"rank {rank} was ended by SIGKILL; by the system, if memory or disk ran out, or by somebody"
            self.kubelet.end_process(found, 137, "Killed", text, rank)

        self.call(kill)

    def log(self, pod: str, namespace: str = "default") -> list[str]:
        """The log of a pod's container."""
        found = self.call(lambda: self.store.get("pods", namespace, pod))
        return self.log_of(found["metadata"]["uid"])

    def log_of(self, uid: str) -> list[str]:
        """The log of a pod's container by the pod's uid, also when the pod is gone."""

        def read() -> list[str]:
            logs = [log for key, log in self.world.logs.logs.items() if key[0] == uid]
            return [text for log in logs for _, text in log.lines]

        return self.call(read)

    # --- what the worker sees ------------------------------------------------------------------

    def add_fault(self, fault: Fault) -> Fault:
        """Let something go wrong."""
        self.call(lambda: self.world.faults.append(fault))
        return fault

    def inject_sidecar(self, sidecar: Sidecar) -> None:
        """Put a container into all pods of a stage that are made from now on."""
        self.call(lambda: self.world.sidecars.append(sidecar))

    def end_injection(self) -> None:
        """Put no more containers into new pods."""
        self.call(self.world.sidecars.clear)

    def disk(self, claim: str, namespace: str = "default") -> Disk:
        """The files of a claim, path → content."""
        return self.call(lambda: self.world.disk(namespace, claim))

    def set_images(self, *images: str) -> None:
        """Images that can be pulled from now on; ``*`` = all."""

        def change() -> None:
            self.world.images.clear()
            self.world.images.update({*images, INIT_IMAGE})

        self.call(change)

    @property
    def mishaps(self) -> list[str]:
        """Violations that no operator should let happen, such as two trainings in one folder."""
        return self.call(lambda: list(self.world.mishaps))
