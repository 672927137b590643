"""Watches one namespace, or all together: its jobs through kopf, what belongs to them by informers.

A namespace that cannot be watched, because it has gone or its Role has, is left out until it can be again; the watches
of other namespaces do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.informer import INFORMED, Informer
from cosmos_operator.controller.kopf_watch import watch
from cosmos_operator.controller.watch_audit import WatchAudit
from cosmos_operator.errors import OperatorError, Refused
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JOB_KINDS, Manifest

LEFT_OUT_S = 30.0
"""Seconds until a namespace that is left out is tried again."""
RETRY_S = 2.0
"""Seconds until it is tried again where the API server did not answer."""

logger = logging.getLogger(__name__)


class NamespaceWatch:
    """Keeps the cache up to date with one namespace.

    Args:
        cluster: the API server.
        cache: receives the objects.
        namespace: the namespace; None = all.
        kinds: kinds that the API server has.
        deliver: receives what has changed.
        notice: called when the namespace is taken up or left out.
        audit_s: seconds between two comparisons of the watch of the jobs with a list.
    """

    def __init__(
        self,
        cluster: KubeCluster,
        cache: Cache,
        namespace: str | None,
        kinds: Collection[str],
        *,
        deliver: Callable[[News], object],
        notice: Callable[[NamespaceWatch], object],
        audit_s: float,
    ) -> None:
        self.namespace = namespace
        self.problem = ""
        """The reason for which the namespace is left out; empty if it is not."""
        self.is_synced = False
        """True while the cache holds everything of the namespace."""
        self._cluster, self._cache = cluster, cache
        self._deliver, self._notice, self._audit_s = deliver, notice, audit_s
        self._job_kinds = [kind for kind in JOB_KINDS if kind in kinds]
        self._informers = [
            Informer(cluster, cache, kind, namespace, deliver) for kind in INFORMED if kind in kinds
        ]
        self._audit = WatchAudit()

    @property
    def kinds(self) -> list[str]:
        """Kinds that are watched."""
        return [*self._job_kinds, *(each.kind for each in self._informers)]

    def lag_s(self, kind: str) -> float:
        """Seconds for which the watch of a kind has owed an event."""
        if not self.is_synced:
            return 0.0
        owed = [each.owed_s() for each in self._informers if each.kind == kind]
        return max(owed, default=self._audit.lag_seconds(kind, time.monotonic()))

    async def run(self) -> None:
        """Watch for ever; leave the namespace out while it cannot be watched."""
        while True:
            try:
                await self.fill()
                await self._watch()
            except OperatorError as error:
                self.is_synced, self.problem = False, " ".join(str(error).split())
                self._notice(self)
                is_refused = isinstance(error, Refused)
                await asyncio.sleep(LEFT_OUT_S if is_refused else RETRY_S)

    async def fill(self) -> None:
        """List everything into the cache, the jobs first.

        Raises:
            ClusterUnavailable: try again later.
            Refused: our account may not read the namespace.
        """
        for kind in self._job_kinds:
            await self._informer_of_jobs(kind).list()
        for informer in self._informers:
            await informer.list()

    async def _watch(self) -> None:
        self.is_synced, self.problem = True, ""
        for kind in self._job_kinds:
            self._audit.forget(kind)
        self._notice(self)
        namespaces = () if self.namespace is None else (self.namespace,)
        jobs = watch(self._job_kinds, namespaces, self._deliver_job, self._cluster.connection)
        tasks = [
            asyncio.create_task(jobs, name="kopf"),
            asyncio.create_task(self._audit_for_ever(), name="audit"),
            *(asyncio.create_task(each.run(), name=each.kind) for each in self._informers),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- jobs ------------------------------------------------------------------------------------

    def _informer_of_jobs(self, kind: str) -> Informer:
        return Informer(self._cluster, self._cache, kind, self.namespace, self._deliver)

    def _deliver_job(self, kind: str, event_type: str | None, job: Manifest) -> None:
        metadata = job["metadata"]
        namespace, name, uid = metadata["namespace"], metadata["name"], metadata["uid"]
        version, is_deleted = metadata["resourceVersion"], event_type == "DELETED"
        now = time.monotonic()
        self._audit.note(kind, namespace, name, uid, version, now, is_deleted=is_deleted)
        gone = self._cache.remove(kind, namespace, name, uid, version) if is_deleted else None
        news = gone if is_deleted else self._cache.put(kind, job)
        if news is not None:
            self._deliver(news)

    async def _audit_for_ever(self) -> None:
        """Compare the watch of the jobs with a list now and then, and make up for what it did not tell."""
        while True:
            await asyncio.sleep(self._audit_s)
            for kind in self._job_kinds:
                asked_at = time.monotonic()
                try:
                    listed = await self._cluster.list_metadata(kind, self.namespace)
                    self._audit.audit(kind, listed, asked_at)
                    await self._make_up(kind, listed)
                except Refused:
                    raise
                except OperatorError as error:
                    logger.warning("cannot compare the watch of %s with a list: %s", kind, error)

    async def _make_up(self, kind: str, listed: list[Manifest]) -> None:
        for metadata in (item["metadata"] for item in listed):
            namespace, name = metadata["namespace"], metadata["name"]
            if self._cache.version(kind, namespace, name) == metadata["resourceVersion"]:
                continue
            job = await self._cluster.get(kind, namespace, name)
            news = self._cache.put(kind, job) if job is not None else None
            if news is not None:
                self._deliver(news)
