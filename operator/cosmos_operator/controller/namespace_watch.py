"""Watches one namespace, or all together: its jobs through kopf, what belongs to them by informers.

A namespace that cannot be watched, because it has gone or its Role has, is left out until it can be again; the watches
of other namespaces do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.informer import INFORMED, Informer
from cosmos_operator.controller.kopf_watch import watch
from cosmos_operator.controller.listed_pages import ListedPage
from cosmos_operator.controller.watch_audit import WatchAudit
from cosmos_operator.errors import OperatorError, Refused
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.kinds import JOB_KINDS, JobKey, Manifest

LEFT_OUT_S = 30.0
"""Seconds until a namespace that is left out is tried again."""
RETRY_S = 2.0
"""Seconds until it is tried again where the API server did not answer."""
QUIET_S = 60.0
"""Seconds without a page of jobs from kopf after which the jobs are listed instead of waited for; long, since two lists
at the same time would slow down a busy API server even more."""
JOBS_AT_ONCE = 20
"""Jobs of a page that are taken into the cache before anything else may run."""

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
        self._lists = {kind: _List() for kind in self._job_kinds}

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
                await self._watch()
            except OperatorError as error:
                self.is_synced, self.problem = False, " ".join(str(error).split())
                self._notice(self)
                is_refused = isinstance(error, Refused)
                await asyncio.sleep(LEFT_OUT_S if is_refused else RETRY_S)

    async def _watch(self) -> None:
        """Fill the cache with everything, and keep it up to date until a watch ends."""
        for kind in self._job_kinds:
            self._audit.forget(kind)
            async for _ in self._cluster.pages(kind, self.namespace, metadata_only=True):
                break  # a refusal is told at once; kopf would try again and again
            self._lists[kind] = _List(heard_at=time.monotonic())
        namespaces = () if self.namespace is None else (self.namespace,)
        connect = self._cluster.connection
        jobs = watch(self._job_kinds, namespaces, self._deliver_job, self._take_page, connect)
        tasks = [asyncio.create_task(jobs, name="kopf")]
        filling = asyncio.create_task(self._fill(), name="filling")
        try:
            await _first_of([*tasks, filling])
            self.is_synced, self.problem = True, ""
            self._notice(self)
            tasks.append(asyncio.create_task(self._audit_for_ever(), name="audit"))
            tasks += [asyncio.create_task(each.run(), name=each.kind) for each in self._informers]
            await _first_of(tasks)
        finally:
            for task in (*tasks, filling):
                task.cancel()
            await asyncio.gather(*tasks, filling, return_exceptions=True)

    async def _fill(self) -> None:
        """Wait until kopf has listed the jobs, and list everything else into the cache.

        Pods come last: whether one that has ended is of use is known from its job.
        """
        first = [self._fill_jobs(kind) for kind in self._job_kinds]
        first += [each.list() for each in self._informers if each.kind != "Pod"]
        tasks = [asyncio.create_task(each) for each in first]
        try:
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for informer in self._informers:
            if informer.kind == "Pod":
                await informer.list()

    async def _fill_jobs(self, kind: str) -> None:
        """Wait until kopf has listed the jobs of a kind; list them if it does not."""
        listed = self._lists[kind]
        while not listed.is_complete.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(listed.is_complete.wait(), QUIET_S)
            if time.monotonic() - listed.heard_at >= QUIET_S and not listed.is_complete.is_set():
                await self._informer_of_jobs(kind).list()
                return

    # --- jobs ------------------------------------------------------------------------------------

    def _informer_of_jobs(self, kind: str) -> Informer:
        return Informer(self._cluster, self._cache, kind, self.namespace, self._deliver)

    async def _take_page(self, page: ListedPage) -> None:
        """Take over a page of kopf's list of jobs; with the last one, forget the jobs that were not in the list."""
        listed = self._lists[page.kind]
        if page.is_first:
            listed.names.clear()
        for number, job in enumerate(page.items):
            if number % JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
            listed.names.add((job["metadata"]["namespace"], job["metadata"]["name"]))
            self._deliver_job(page.kind, "ADDED", job)
        listed.heard_at = time.monotonic()
        if page.is_last:
            for news in self._cache.keep_only(
                page.kind, self.namespace, listed.names, page.version
            ):
                self._deliver(news)
            listed.names.clear()
            listed.is_complete.set()

    def _deliver_job(self, kind: str, event_type: str, job: Manifest) -> None:
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
        """Take over what a watch has not delivered: jobs that were changed, and those that are gone."""
        names = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in listed}
        for key, _ in list(self._cache.jobs(self.namespace)):
            if key.kind == kind and (key.namespace, key.name) not in names:
                await self._forget_if_gone(key)
        for metadata in (item["metadata"] for item in listed):
            namespace, name = metadata["namespace"], metadata["name"]
            if self._cache.version(kind, namespace, name) == metadata["resourceVersion"]:
                continue
            job = await self._cluster.get(kind, namespace, name)
            news = self._cache.put(kind, job) if job is not None else None
            if news is not None:
                self._deliver(news)

    async def _forget_if_gone(self, key: JobKey) -> None:
        """Remove a job from the cache that no list has any more, as its deletion would have."""
        known = self._cache.get(key.kind, key.namespace, key.name)
        if known is None or await self._cluster.get(key.kind, key.namespace, key.name) is not None:
            return
        news = self._cache.remove(key.kind, key.namespace, key.name, known["metadata"]["uid"])
        if news is not None:
            self._deliver(news)


@dataclass
class _List:
    """The list of jobs with which kopf's watch begins."""

    heard_at: float = 0.0
    """Time of its last page, or of its beginning, on the monotonic clock."""
    names: set[tuple[str, str]] = field(default_factory=set)
    """Namespaces and names of the jobs in its pages so far."""
    is_complete: asyncio.Event = field(default_factory=asyncio.Event)


async def _first_of(tasks: list[asyncio.Task[None]]) -> None:
    """Wait until one of the tasks ends; raise its error if it has one."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
