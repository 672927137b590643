"""Keeps the objects of one kind in the cache: a list, then a watch that goes on from it, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.lists import SILENCE_S, Change, Page, WatchExpired

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
"""Seconds until a watch that ended, or failed, is begun again; they double with each failure in a row."""

OURS = {MANAGED_LABEL: MANAGED_BY}
INFORMED: Mapping[str, Mapping[str, str]] = {
    # workloads before pods: whether a pod that has ended is of use is known from its Job
    "Job": OURS,
    "PyTorchJob": OURS,
    "TrainJob": OURS,
    "Pod": OURS,
    "ConfigMap": OURS,
    "Service": OURS,
    "PersistentVolumeClaim": {},
    "LocalQueue": {},
    "Workload": {},
}
"""Kind that passes look at → labels that those of its objects have."""
METADATA_ONLY = ("ConfigMap",)
"""Kinds of which it matters only that they are there, and whose they are: of these trim.py keeps nothing else."""

logger = logging.getLogger(__name__)


class Source(Protocol):
    """The requests that an informer needs."""

    def pages(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Page]:
        """All objects of a kind, page by page."""

    def changes(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str],
        version: str,
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Change]:
        """Changes after a version."""


@dataclass
class Informer:
    """Keeps the objects of one kind in the cache."""

    source: Source
    cache: Cache
    kind: str
    namespace: str | None
    """Namespace that is watched; None = all."""
    deliver: Callable[[News], object]
    """Receives what has changed."""
    heard_at: float = 0.0
    """Time of the last word of the API server, on the monotonic clock."""
    version: str = ""
    """resourceVersion from which the watch goes on; empty = list first."""

    async def list(self) -> None:
        """Bring the cache up to date with a list.

        Raises:
            ClusterUnavailable: try again later.
            Refused: our account may not list these objects.
        """
        names, version = set(), ""
        labels = INFORMED.get(self.kind, {})
        metadata_only = self.kind in METADATA_ONLY
        pages = self.source.pages(self.kind, self.namespace, labels, metadata_only=metadata_only)
        async for page in pages:
            version = page.version
            for item in page.items:
                metadata = item["metadata"]
                names.add((metadata.get("namespace", ""), metadata["name"]))
                self._take(self.cache.put(self.kind, item))
            await asyncio.sleep(0)
        for news in self.cache.keep_only(self.kind, self.namespace, names, version):
            self._take(news)
        self.version, self.heard_at = version, time.monotonic()

    def owed_s(self) -> float:
        """Seconds for which the API server has owed a word, such as a bookmark; 0 if it owes none."""
        return max(0.0, time.monotonic() - self.heard_at - SILENCE_S)

    async def run(self) -> None:
        """List if that has not been done, and watch for ever.

        Raises:
            Refused: our account may not read these objects, or not any longer.
        """
        failures = 0
        while True:
            try:
                if not self.version:
                    await self.list()
                await self._watch()
                failures = 0
            except WatchExpired:
                self.version = ""
            except ClusterUnavailable as error:
                failures += 1
                logger.warning("watch of %s in %s: %s", self.kind, self.namespace or "all", error)
            pause_s = min(FIRST_PAUSE_S * 2 ** min(failures, 16), LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def _watch(self) -> None:
        labels = INFORMED.get(self.kind, {})
        metadata_only = self.kind in METADATA_ONLY
        changes = self.source.changes(
            self.kind, self.namespace, labels, self.version, metadata_only=metadata_only
        )
        async for change in changes:
            self.version, self.heard_at = change.version, time.monotonic()
            if change.type == "DELETED":
                metadata = change.body["metadata"]
                where, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
                gone = self.cache.remove(
                    self.kind, where, name, uid, change.version, last=change.body
                )
                self._take(gone)
            elif change.type != "BOOKMARK":
                self._take(self.cache.put(self.kind, change.body))

    def _take(self, news: News | None) -> None:
        if news is not None:
            self.deliver(news)
