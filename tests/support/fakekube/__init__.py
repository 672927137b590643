"""A Kubernetes cluster in a thread: API server, controllers, nodes whose pods run a simulated worker.

It is there so that whole jobs run in seconds and so that faults can be injected into them: calls that are refused,
watches that break, nodes, pods and processes that die. It grows by such faults only. It takes every object as it is
and applies a status as its only owner would: what an API server refuses, fills in, drops and merges is tested on a
real one (tests/api_server), and what both have in common on both (tests/fakekube/test_contract*.py).

``FakeKube`` is what tests use; everything it offers may be called from any thread.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from support.fakekube import nodes, server
from support.fakekube.errors import ApiError
from support.fakekube.garbage import GarbageCollector
from support.fakekube.jobs import JobController
from support.fakekube.kubelet import Kubelet
from support.fakekube.kueue import Kueue
from support.fakekube.resources import CRDS, Object, open_crd
from support.fakekube.scheduler import STORAGE_CLASSES, ClaimBinder, Scheduler
from support.fakekube.selection import matches
from support.fakekube.server import Call, Rule
from support.fakekube.sidecars import Sidecar
from support.fakekube.trainer import TrainJobController
from support.fakekube.training_operator import INIT_IMAGE, PyTorchJobController
from support.fakekube.world import ControlLoop, Disk, Fault, Timing, World

__all__ = ["ApiError", "Call", "FakeKube", "Fault", "Sidecar", "Timing"]

T = TypeVar("T")
OPTIONAL = {
    "PyTorchJob": [open_crd("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")],
    "TrainJob": [
        open_crd("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob"),
        open_crd("trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes",
                 "ClusterTrainingRuntime", namespaced=False),
        open_crd("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "TrainingRuntime"),
    ],
    "Kueue": [
        open_crd("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue"),
        open_crd("kueue.x-k8s.io", "v1beta1", "workloads", "Workload"),
    ],
}  # fmt: skip
"""CustomResourceDefinitions of other operators, by kind."""


class FakeKube:
    """A cluster with one node of 16 CPUs, the storage class ``standard`` and the namespace ``default``.

    Args:
        kinds: what is installed of PyTorchJob, TrainJob and Kueue.
        timing: how long things take.
        images: images that can be pulled; ``*`` = all.
    """

    def __init__(
        self,
        kinds: Iterable[str] = ("PyTorchJob",),
        timing: Timing | None = None,
        images: Iterable[str] = ("*",),
    ) -> None:
        self._kinds = tuple(kinds)
        self._timing, self._images = timing or Timing(), {*images, INIT_IMAGE}
        self._thread = threading.Thread(target=self._serve, name="fakekube", daemon=True)
        self._ready, self._closing = threading.Event(), asyncio.Event()
        self._error: BaseException | None = None
        self.url = ""

    # --- life ----------------------------------------------------------------------------------

    def start(self) -> FakeKube:
        """Start; returns itself."""
        self._thread.start()
        self._ready.wait(10)
        if self._error is not None:
            raise self._error
        return self

    def stop(self) -> None:
        """End everything.

        Raises:
            BaseException: the simulation itself had a bug on the way.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(10)
        if self.world.crashes:
            raise self.world.crashes[0]

    def __enter__(self) -> FakeKube:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
            self._ready.set()
            raise

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self.world = World(timing=self._timing, images=self._images)
        self.store = self.world.store
        self.kubelet, self.kueue = Kubelet(self.world), Kueue(self.world)
        self.loop = ControlLoop(
            self.world,
            [
                GarbageCollector(self.world),
                JobController(self.world),
                PyTorchJobController(self.world),
                TrainJobController(self.world),
                self.kueue,
                ClaimBinder(self.world),
                Scheduler(self.world),
                nodes.NodeController(self.world),
                self.kubelet,
            ],
        )
        self.api = server.FakeApiServer(self.store, self.world.logs)
        self._furnish()
        runner, self.url = await server.start(self.api)
        self._ready.set()
        await self._closing.wait()
        self.loop.close()
        await self.kubelet.close()
        self.api.watches.drop()
        await runner.cleanup()

    def _furnish(self) -> None:
        for name in ("default", "kube-system"):
            self.store.create("namespaces", {"metadata": {"name": name}})
        marker = {"storageclass.kubernetes.io/is-default-class": "true"}
        for name, mode in (("standard", "Immediate"), ("local", "WaitForFirstConsumer")):
            annotations = marker if name == "standard" else {}
            meta = {"name": name, "annotations": annotations}
            self.store.create(
                STORAGE_CLASSES,
                {"metadata": meta, "provisioner": "fake", "volumeBindingMode": mode},
            )
        for kind in self._kinds:
            self._install(kind)
        nodes.add_node(self.store, nodes.make_node("node-1", {}))

    def _install(self, kind: str) -> None:
        for crd in OPTIONAL[kind]:
            self.store.create(CRDS, crd)

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in the cluster's thread, between two of its events."""

        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig file for this cluster; returns its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "fake"}}],
            "contexts": [
                {
                    "name": "fake",
                    "context": {"cluster": "fake", "user": "fake", "namespace": "default"},
                }
            ],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    # --- objects -------------------------------------------------------------------------------

    def create(self, key: str, obj: Object) -> Object:
        """Make an object of a kind named ``plural.group``, such as jobs.batch or pods."""
        return self.call(lambda: copy.deepcopy(self.store.create(key, obj)))

    def get(self, key: str, name: str, namespace: str | None = "default") -> Object | None:
        """An object, or None."""
        return self.call(lambda: copy.deepcopy(self.store.find(key, namespace, name)))

    def find(self, key: str, namespace: str | None = None, **labels: str) -> list[Object]:
        """Objects of a kind; labels are given by the last part of their name, such as ``stage="train"``."""

        def fits(obj: Object) -> bool:
            own = {k.rpartition("/")[2]: v for k, v in obj["metadata"].get("labels", {}).items()}
            return matches(own, labels)

        found = self.call(lambda: copy.deepcopy(self.store.list(key, namespace)))
        return [obj for obj in found if fits(obj)]

    def install_crd(self, crd: Object) -> None:
        """Install a CustomResourceDefinition, or replace it."""

        def install() -> None:
            old = self.store.find(CRDS, None, crd["metadata"]["name"])
            if old is None:
                self.store.create(CRDS, crd)
            else:
                meta = {**crd["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
                self.store.update(CRDS, {**crd, "metadata": meta})

        self.call(install)

    def install(self, kind: str) -> None:
        """Install PyTorchJob, TrainJob or Kueue."""
        self.call(lambda: self._install(kind))

    def uninstall(self, kind: str) -> None:
        """Remove them, and all their objects."""

        def remove() -> None:
            for crd in OPTIONAL[kind]:
                self.store.delete(CRDS, None, crd["metadata"]["name"])

        self.call(remove)

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
