"""Keeps the watches running, compares them with lists, and queues every job to which something happened."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Iterator

from cosmos_operator.api.base import KIND
from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.controller.kopf_watch import watch
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.router import Router, WatchEvent
from cosmos_operator.controller.watch_audit import WatchAudit
from cosmos_operator.controller.work_queue import WorkQueue
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.settings import Settings

ALWAYS_WATCHED = ("Job", "Pod")
WATCHED_IF_SERVED = (KIND, "PyTorchJob", "TrainJob")

SERVED_POLL_S = 30.0
"""Seconds between two requests for the kinds that the API server has."""
MISSING_POLL_S = 5.0
"""The same while it has no PostTrainingJob and the operator has nothing to do."""
MIN_AUDIT_S = 30.0
"""Shortest time between two audits, in seconds."""
AUDITS_PER_RESYNC = 5
FIRST_AUDIT_S = 1.0
"""Seconds between two audits until the watches have delivered all that the first lists hold."""
MAX_LAG_S = 120.0
"""Lag in seconds from which on a watch counts as dead."""

logger = logging.getLogger(__name__)


class Watcher:
    """Queues the jobs to which something happens in the cluster, and notices watches that deliver no more.

    Args:
        cluster: the API server.
        settings: settings of the installation.
        queue: receives the jobs.
        metrics: receive the lag of each watch.
    """

    def __init__(
        self, cluster: KubeCluster, settings: Settings, queue: WorkQueue, metrics: Metrics
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._queue = queue
        self._metrics = metrics
        self._audit = WatchAudit()
        self._router = Router()
        self._kinds: frozenset[str] = frozenset()
        self.is_caught_up = False
        """True once the watches have delivered all objects that existed at the start."""

    def problems(self) -> Iterator[str]:
        """Watches that are dead, one line each."""
        now = time.monotonic()
        for kind in sorted(self._kinds):
            lag_s = self._audit.lag_seconds(kind, now)
            if lag_s > MAX_LAG_S:
                yield f"watch of {kind}: no event for a change that is {lag_s:.0f} s old"

    async def watch(self) -> None:
        """Watch for ever the kinds that the API server has; they come and go with their operators.

        Raises:
            ClusterUnavailable: the watches ended although their kinds are still there.
        """
        kinds = await self._served_kinds()
        while True:
            for kind in kinds | self._kinds:
                self._audit.forget(kind)
            for kind in kinds:
                self._metrics.follow_watch(self._audit, kind)
            self._kinds = kinds
            if KIND not in kinds:
                logger.warning(
                    "the API server has no %s; install it: cosmos crd | kubectl apply --server-side -f -",
                    KIND,
                )
            logger.info("watching %s", ", ".join(sorted(kinds)))
            kinds = await self._watch_these(kinds)

    async def resync(self) -> None:
        """Compare the watches with lists for ever, and queue every job once per resync."""
        resync_s = self._settings.resync_seconds
        audit_s = max(resync_s / AUDITS_PER_RESYNC, min(MIN_AUDIT_S, resync_s))
        num_rounds = max(int(resync_s // audit_s), 1)
        index = 0
        while True:
            jobs = await self._audit_all()
            for key in sorted(jobs):
                if zlib.crc32(str(key).encode()) % num_rounds == index:
                    self._queue.add(key)
            if self.is_caught_up:
                index = (index + 1) % num_rounds
                await asyncio.sleep(audit_s)
            else:
                self._update_is_caught_up()
                await asyncio.sleep(FIRST_AUDIT_S)

    def _deliver(self, event: WatchEvent) -> None:
        self._audit.note(
            event.kind,
            event.namespace,
            event.name,
            event.uid,
            event.resource_version,
            time.monotonic(),
            is_deleted=event.is_deleted,
        )
        for key in self._router.route(event):
            self._queue.add(key)

    async def _watch_these(self, kinds: frozenset[str]) -> frozenset[str]:
        """Watch until the API server has other kinds; returns those."""
        namespaces = self._settings.watch_namespaces
        poll_s = SERVED_POLL_S if KIND in kinds else MISSING_POLL_S
        session = asyncio.create_task(
            watch(kinds, namespaces, self._deliver, self._cluster.connection), name="kopf"
        )
        try:
            while True:
                await asyncio.wait((session,), timeout=poll_s)
                served = await self._served_kinds()
                if served != kinds:
                    return served
                if session.done():
                    session.result()
        finally:
            session.cancel()
            await asyncio.gather(session, return_exceptions=True)

    async def _served_kinds(self) -> frozenset[str]:
        while True:
            try:
                return await self._cluster.serving(WATCHED_IF_SERVED) | set(ALWAYS_WATCHED)
            except OperatorError as error:
                logger.warning("cannot list the kinds of the API server: %s", error)
                await asyncio.sleep(FIRST_AUDIT_S)

    async def _audit_all(self) -> set[JobKey]:
        """Audit every kind; returns the jobs that exist according to the list or the watch."""
        jobs = {JobKey(KIND, *found) for found in self._audit.known(KIND)}
        for kind in sorted(self._kinds):
            asked_at = time.monotonic()
            try:
                listed = await self._list(kind)
            except OperatorError as error:
                logger.warning("cannot list %s: %s", kind, error)
                continue
            self._audit.audit(kind, listed, asked_at)
            if kind == KIND:
                jobs |= {
                    JobKey(KIND, each["metadata"]["namespace"], each["metadata"]["name"])
                    for each in listed
                }
        return jobs

    async def _list(self, kind: str) -> list[Manifest]:
        labels = {} if kind == KIND else {MANAGED_LABEL: MANAGED_BY}
        result: list[Manifest] = []
        for namespace in self._settings.watch_namespaces or (None,):
            result += await self._cluster.list_metadata(kind, namespace, labels)
        return result

    def _update_is_caught_up(self) -> None:
        kinds = self._kinds
        self.is_caught_up = bool(kinds) and all(map(self._audit.has_caught_up, kinds))
        if self.is_caught_up:
            logger.info("the watches have delivered all existing objects")
