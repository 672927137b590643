"""One process of the operator, put together as ``controller/manager`` does, but for kopf and the health server.

kopf runs in a thread of its own, so the jobs are watched by an informer like everything else.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

from cosmos_operator.controller import cache as cache_module
from cosmos_operator.controller import informer as informer_module
from cosmos_operator.controller import lease as lease_module
from cosmos_operator.controller import queue_check as queue_check_module
from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.informer import INFORMED, Informer
from cosmos_operator.controller.lease import Lease, LeaseLost
from cosmos_operator.controller.orphans import KINDS as ORPHAN_KINDS
from cosmos_operator.controller.orphans import OrphanCollector
from cosmos_operator.controller.planning_process import InlinePlanner
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.controller.router import Router
from cosmos_operator.controller.served_crd import ServedCrd
from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.errors import ClusterUnavailable, OperatorError
from cosmos_operator.kube import cluster as cluster_module
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JOB_KINDS, OPTIONAL_KINDS, JobKey
from cosmos_operator.plan import render as render_module
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.plan.render import to_yaml
from cosmos_operator.settings import Settings
from support.crash_sweep.clock import SimulatedLoop
from support.crash_sweep.model_client import PASS, ModelClient

SETTINGS = Settings(keepFinishedSeconds=60)
KINDS = (*JOB_KINDS, *(kind for kind in INFORMED if kind not in OPTIONAL_KINDS))
RESTART_S = 5.0
REPLICA: ContextVar[str] = ContextVar("REPLICA", default="")
_CRD = ServedCrd(SimpleNamespace())  # type: ignore[arg-type]  # never refreshed: it leaves every status as it is


class RememberingPlanner(InlinePlanner):
    """Plans each job once for all simulations; planning is pure, and takes longer than a pass."""

    known: ClassVar[dict[bytes, bytes]] = {}

    async def run(self, function: Callable[..., JobPlan], *arguments: Any) -> JobPlan:
        question = pickle.dumps((function.__name__, arguments))
        if question not in self.known:
            self.known[question] = pickle.dumps(await super().run(function, *arguments))
        plan: JobPlan = pickle.loads(self.known[question])
        return plan


class Counters:
    """Counts nothing."""

    def note_job(self, key: JobKey, state: str | None) -> None: ...

    def note_attempt(self, outcome: str) -> None: ...

    def note_gpu_hours(self, kind: str, hours: float) -> None: ...


class Replica:
    """A place in which a process of the operator runs, and runs again after each end.

    Args:
        loop: the simulated time.
        name: its name, also its identity for the Lease.
        make_client: gives a new process its connection.
        failed: told of every pass that raises something unexpected.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        name: str,
        make_client: Callable[[Replica], ModelClient],
        failed: Callable[[str], None],
    ) -> None:
        self.loop, self.name = loop, name
        self.clock_s = 0.0
        """Seconds by which its clock is ahead."""
        self.passes: Counter[str] = Counter()
        self.client: ModelClient | None = None
        self.starts = 0
        self._make_client, self._failed = make_client, failed
        self._tasks: list[asyncio.Task[Any]] = []
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a process."""
        self.starts += 1
        self.client = self._make_client(self)
        self._main = self.loop.create_task(self._run(self.client))

    def kill(self) -> None:
        """End the process at once, as SIGKILL does, and start the next a moment later."""
        client, main = self.client, self._main
        if client is None or client.is_dead or main is None:
            return
        client.is_dead = True
        client.server.wake()
        self.loop.call_soon(main.cancel)
        self.loop.call_later(RESTART_S, self.start)

    def now(self) -> datetime:
        """The time on its clock."""
        return self.loop.now() + timedelta(seconds=self.clock_s)

    async def _run(self, client: ModelClient) -> None:
        REPLICA.set(self.name)
        lease = Lease(
            client_cluster := KubeCluster(client), SETTINGS.lease, self.name, clock=self.loop.time
        )  # type: ignore[arg-type]
        tasks: list[asyncio.Task[Any]] = []
        try:
            await lease.acquire()
            tasks = self._parts(client_cluster, lease)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._failed(f"{self.name}: a part of the operator ended by itself")
        except (LeaseLost, ClusterUnavailable):
            self.loop.call_soon(self.kill)  # the process ends, and its container is started again
        except Exception as error:
            self._failed(f"{self.name}: the process ended by {type(error).__name__}: {error}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _parts(self, cluster: KubeCluster, lease: Lease) -> list[asyncio.Task[Any]]:
        cache = Cache()
        router = Router(cache)
        queue = WorkQueue(self._pass, workers=4, scheduler=self.loop)
        reconciler = Reconciler(
            cluster,
            cache,
            router,
            SETTINGS,
            Counters(),
            queue.add,
            cluster.now,
            crd=_CRD,
            planner=RememberingPlanner(),
        )
        reconciler._pace._clock = reconciler._reads._clock = self.loop.time
        self._handle = reconciler.reconcile

        def deliver(news: News) -> None:
            for key in router.route(news):
                queue.add(key, is_new=news.is_new_job and key in news.users)

        informers = [Informer(cluster, cache, kind, None, deliver) for kind in KINDS]
        orphans = OrphanCollector(cluster, SETTINGS, cluster.now)
        create = self.loop.create_task
        return [
            create(lease.renew_until_lost()),
            create(self._watch(informers, queue, cache)),
            create(_collect(orphans)),
            create(self._resync(queue, cache)),
            create(queue.run()),
        ]

    async def _watch(self, informers: list[Informer], queue: WorkQueue, cache: Cache) -> None:
        """List everything, then watch; as ``NamespaceWatch`` does it."""
        while True:
            try:
                for informer in sorted(informers, key=lambda one: one.kind == "Pod"):
                    await informer.list()
                break
            except OperatorError:
                await asyncio.sleep(2.0)
        for key, _ in list(cache.jobs()):
            queue.add(key)
        await asyncio.gather(*(each.run() for each in informers))

    async def _resync(self, queue: WorkQueue, cache: Cache) -> None:
        while True:
            await asyncio.sleep(SETTINGS.resync_seconds)
            for key, has_ended in list(cache.jobs()):
                if not has_ended:
                    queue.add(key)

    async def _pass(self, key: JobKey) -> float | None:
        token = PASS.set(key)
        self.passes[key.name] += 1
        try:
            return await self._handle(key)
        except OperatorError:
            raise
        except Exception as error:
            where = traceback.format_exc(limit=-4)
            self._failed(f"a pass over {key} raised {type(error).__name__}: {error}\n{where}")
            raise
        finally:
            PASS.reset(token)


async def _collect(orphans: OrphanCollector) -> None:
    while True:
        await asyncio.sleep(600)
        for kind in ORPHAN_KINDS:
            try:
                await orphans.collect(kind, None)
            except OperatorError:
                continue


@cache
def _rendered(text: str) -> str:
    return to_yaml(json.loads(text))


def _to_yaml(document: Any) -> str:
    return _rendered(json.dumps(document))


@contextmanager
def simulated_time(loop: SimulatedLoop) -> Iterator[None]:
    """Let the operator's modules take the time from a simulated loop."""
    clock = SimpleNamespace(monotonic=loop.time)
    with (
        patch.object(cache_module, "time", clock),
        patch.object(informer_module, "time", clock),
        patch.object(queue_check_module, "time", clock),
        patch.object(render_module, "to_yaml", _to_yaml),  # the slowest part of a pass, and pure
        patch.object(cluster_module, "monotonic", loop.time),
        patch.object(lease_module, "_now", lambda: f"{loop.time():.6f}"),
    ):
        yield
