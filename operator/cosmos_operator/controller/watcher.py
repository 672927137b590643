"""Keeps the watches of all namespaces running, and queues every job to which something happened."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.informer import INFORMED
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.namespace_watch import NamespaceWatch
from cosmos_operator.controller.router import Router
from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JOB_KINDS, OPTIONAL_KINDS, JobKey
from cosmos_operator.kube.objects import seconds_since
from cosmos_operator.settings import Settings

SERVED_POLL_S = 90.0
"""Seconds between two requests for the kinds that the API server has."""
MISSING_POLL_S = 5.0
"""The same while a job needs a kind that it has not, or it has no PostTrainingJob."""
FIRST_RETRY_S = 1.0
"""Seconds until the kinds are asked for again where the API server did not answer."""
ROUNDS = 12
"""Resyncs in which every job that has not ended gets a pass though nothing happened, a part in each."""
MAX_LAG_S = 120.0
"""Lag in seconds from which on a watch counts as dead."""

logger = logging.getLogger(__name__)


class Watcher:
    """Queues the jobs to which something happens in the cluster, and notices watches that deliver no more.

    Args:
        cluster: the API server.
        settings: settings of the installation.
        cache: is kept up to date.
        router: finds the jobs that a change is about.
        queue: receives the jobs.
        metrics: receive states of jobs, and the lag of each watch.
    """

    def __init__(
        self,
        cluster: KubeCluster,
        settings: Settings,
        cache: Cache,
        router: Router,
        queue: WorkQueue,
        metrics: Metrics,
    ) -> None:
        self._cluster, self._settings = cluster, settings
        self._cache, self._router = cache, router
        self._queue, self._metrics = queue, metrics
        self._watches: list[NamespaceWatch] = []
        self._has_kinds = False

    @property
    def is_caught_up(self) -> bool:
        """True once the cache holds everything of all namespaces but those that are left out, if any is not."""
        tried = all(each.is_synced or each.problem for each in self._watches)
        usable = not self._watches or any(each.is_synced for each in self._watches)
        return self._has_kinds and tried and usable

    def watches(self, namespace: str) -> bool:
        """True if the cache is up to date with a namespace."""
        return any(each.is_synced for each in self._watches if each.namespace in (None, namespace))

    def problems(self) -> Iterator[str]:
        """Watches that are dead, one line each."""
        for each in self._watches:
            for kind in each.kinds:
                if (lag_s := each.lag_s(kind)) > MAX_LAG_S:
                    yield f"watch of {kind}: no event for a change that is {lag_s:.0f} s old"

    def left_out(self) -> Iterator[str]:
        """Namespaces that cannot be watched, one line each."""
        for each in self._watches:
            if each.problem:
                yield f"{_where(each)} is left out: {each.problem}"

    async def watch(self) -> None:
        """Watch for ever the kinds that the API server has; they come and go with their operators."""
        while True:
            kinds = await self._served_kinds()
            self._cache.served = kinds & set(OPTIONAL_KINDS)
            self._begin(kinds)
            tasks = [asyncio.create_task(each.run()) for each in self._watches]
            try:
                await self._until_kinds_change(kinds, tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def resync(self) -> None:
        """Queue every job now and then though nothing happened, a part of them at a time."""
        index = 0
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            index = (index + 1) % ROUNDS
            for key, has_ended in list(self._cache.jobs()):
                if not has_ended and zlib.crc32(str(key).encode()) % ROUNDS == index:
                    self._queue.add(key)

    # --- kinds -----------------------------------------------------------------------------------

    def _begin(self, kinds: frozenset[str]) -> None:
        """Prepare the watches of these kinds."""
        namespaces = self._settings.watch_namespaces or (None,)
        if not kinds & set(JOB_KINDS):
            namespaces = ()
            logger.warning(
                "the API server has no %s; install it: cosmos crd | kubectl apply --server-side -f -",
                JOB_KINDS[0],
            )
        self._watches = [
            NamespaceWatch(
                self._cluster,
                self._cache,
                namespace,
                kinds,
                deliver=self._deliver,
                notice=self._notice,
                audit_s=self._settings.resync_seconds,
            )
            for namespace in namespaces
        ]
        for kind in {kind for each in self._watches for kind in each.kinds}:
            self._metrics.follow_watch(kind, lambda kind=kind: self._lag_s(kind))  # type: ignore[misc]
        self._has_kinds = True
        logger.info("watching %s", ", ".join(sorted(kinds)))

    async def _until_kinds_change(
        self, kinds: frozenset[str], tasks: list[asyncio.Task[None]]
    ) -> None:
        asked_at = time.monotonic()
        while True:
            if tasks:
                done, _ = await asyncio.wait(tasks, timeout=MISSING_POLL_S)
                for task in done:
                    task.result()
            else:
                await asyncio.sleep(MISSING_POLL_S)
            is_awaited = self._cache.awaiting_kinds or not kinds & set(JOB_KINDS)
            if is_awaited or time.monotonic() - asked_at >= SERVED_POLL_S:
                if await self._served_kinds() != kinds:
                    return
                asked_at = time.monotonic()

    async def _served_kinds(self) -> frozenset[str]:
        optional = {*JOB_KINDS, *OPTIONAL_KINDS}
        while True:
            try:
                return await self._cluster.serving(optional) | (INFORMED.keys() - optional)
            except OperatorError as error:
                logger.warning("cannot list the kinds of the API server: %s", error)
                await asyncio.sleep(FIRST_RETRY_S)

    def _lag_s(self, kind: str) -> float:
        return max((each.lag_s(kind) for each in self._watches), default=0.0)

    # --- events ----------------------------------------------------------------------------------

    def _deliver(self, news: News) -> None:
        if not self.watches(news.namespace):
            return  # all jobs are queued once the namespace is known
        for key in self._router.route(news):
            self._queue.add(key, is_new=news.is_new_job and key in news.users)

    def _notice(self, namespace_watch: NamespaceWatch) -> None:
        """Queue the jobs of a namespace that is taken up; tell of one that is left out."""
        namespace, problem = namespace_watch.namespace, namespace_watch.problem
        if namespace is not None:
            self._metrics.note_namespace(namespace, is_left_out=bool(problem))
        if problem:
            logger.warning("%s is left out: %s", _where(namespace_watch), problem)
            return
        logger.info("%s: the watches have delivered all existing objects", _where(namespace_watch))
        for key, has_ended in list(self._cache.jobs(namespace)):
            if has_ended and not self._cache.has_objects(key):
                self._await_deletion(key)
            else:
                self._queue.add(key)

    def _await_deletion(self, key: JobKey) -> None:
        """Count a job that has ended, and queue it for the time at which it is to be deleted."""
        job = self._cache.get(key.kind, key.namespace, key.name) or {}
        status = job.get("status") or {}
        self._metrics.note_job(key, str(status.get("state", "")))
        ttl_s = (job.get("spec", {}).get("runPolicy") or {}).get("ttlSecondsAfterFinished")
        if ttl_s is not None:
            age_s = seconds_since(status.get("completionTime"), datetime.now(UTC))
            self._queue.add_after(key, max(0.0, ttl_s - age_s))


def _where(namespace_watch: NamespaceWatch) -> str:
    name = namespace_watch.namespace
    return "the cluster" if name is None else f"namespace {name}"
