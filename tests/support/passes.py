"""Passes over jobs without watches: the test says when the cache learns what the API server has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.informer import INFORMED
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.namespace_watch import NamespaceWatch
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.controller.router import Router
from cosmos_operator.kube.cluster import KubeCluster, connect
from cosmos_operator.kube.kinds import JOB_KINDS, JobKey
from cosmos_operator.settings import Settings
from support.fakekube import Call, FakeKube
from support.jobs import make_document

PTJS = "posttrainingjobs.cosmos.dev"


def key_of(name: str) -> JobKey:
    """Key of a PostTrainingJob of the namespace ``default``."""
    return JobKey(JOB_KINDS[0], "default", name)


def make_ptj(kube: FakeKube, name: str, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Create a PostTrainingJob in the namespace ``default``."""
    job = make_document(changes)
    job["metadata"] = {"name": name, "namespace": "default"}
    return kube.create(PTJS, job)


def make_claim(kube: FakeKube, name: str = "cosmos") -> None:
    """Create a claim that pods of many nodes can use."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    meta = {"name": name, "namespace": "default"}
    kube.create("persistentvolumeclaims", {"metadata": meta, "spec": spec})


class Passes:
    """A reconciler, its cache, and the requests that it sends."""

    def __init__(self, kube: FakeKube, cluster: KubeCluster, settings: Settings) -> None:
        self.kube, self.cluster, self.cache = kube, cluster, Cache()
        self.router = Router(self.cache)
        self.woken: list[JobKey] = []
        self.metrics = Metrics()
        self.reconciler = Reconciler(
            cluster, self.cache, self.router, settings, self.metrics, self.woken.append
        )

    async def sync(self) -> list[JobKey]:
        """Let the cache learn everything that the API server has; returns the jobs that this is news for."""
        news: list[JobKey] = []
        await NamespaceWatch(
            self.cluster,
            self.cache,
            None,
            [*JOB_KINDS, *INFORMED],
            deliver=lambda one: news.extend(self.router.route(one)),
            notice=lambda _: None,
            audit_s=300,
        ).fill()
        return news

    async def reconcile(self, name: str) -> tuple[float | None, list[Call]]:
        """Carry out a pass; returns the requeue time and the requests that it sent."""
        before = len(self.kube.calls())
        requeue_after_s = await self.reconciler.reconcile(key_of(name))
        return requeue_after_s, self.kube.calls()[before:]

    async def settle(self, name: str, seconds: float = 30) -> None:
        """Sync and carry out passes until the job has ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.sync()
            await self.reconcile(name)
            job = self.kube.get(PTJS, name) or {}
            if job.get("status", {}).get("state") in ("Succeeded", "Failed"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} does not end: {job.get('status')}")


@asynccontextmanager
async def passes(kube: FakeKube, folder: Path, **settings: Any) -> AsyncIterator[Passes]:
    """Passes over the jobs of a cluster."""
    cluster = await connect(kube.write_kubeconfig(folder / "kubeconfig"))
    yield Passes(kube, cluster, Settings(**settings))
    await cluster.close()
