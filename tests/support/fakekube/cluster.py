"""Life of the simulated cluster, and its objects: what a test needs where nothing goes wrong."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self, TypeVar

import yaml

from support.fakekube import nodes, server
from support.fakekube.commands import PodCommands
from support.fakekube.garbage import GarbageCollector
from support.fakekube.jobs import JobController
from support.fakekube.kubelet import Kubelet
from support.fakekube.kueue import Kueue
from support.fakekube.resources import CRDS, Object, open_crd
from support.fakekube.scheduler import STORAGE_CLASSES, ClaimBinder, Scheduler
from support.fakekube.selection import matches
from support.fakekube.trainer import TrainJobController
from support.fakekube.training_operator import INIT_IMAGE, PyTorchJobController
from support.fakekube.world import ControlLoop, Timing, World

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


class SimulatedCluster:
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

    def start(self) -> Self:
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

    def __enter__(self) -> Self:
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
        self.api = server.FakeApiServer(self.store, self.world.logs, PodCommands(self.world))
        self._furnish()
        runner, self.url = await server.start(self.api)
        self._ready.set()
        await self._closing.wait()
        self.loop.close()
        await self.kubelet.close()
        self.api.watches.drop()
        await server.stop(runner)

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
