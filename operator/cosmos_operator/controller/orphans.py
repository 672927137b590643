"""Collects objects of shared stages that nobody owns any more: Kubernetes deletes only what had an owner that is gone.

The operator itself leaves none behind, since the last job that gives an object up deletes it. Other programs may remove
owner references, as restoring a namespace from a backup does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from cosmos_operator.api.labels import JOB_LABEL, MANAGED_BY, MANAGED_LABEL, STAGE_LABEL
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, labels_of, name_of, seconds_since
from cosmos_operator.settings import Settings

KINDS = ("Job", "ConfigMap")
"""Kinds of object that jobs share."""
PERIOD_S = 600.0
"""Seconds between two collections."""
MIN_AGE_S = 600.0
"""Age in seconds from which on an object without owners counts as left behind."""

logger = logging.getLogger(__name__)


class Store(Protocol):
    """The requests that a collection needs."""

    async def list_metadata(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """All objects with these labels, without what the server can omit."""

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        *,
        foreground: bool,
        resource_version: str = "",
    ) -> Manifest | None:
        """Delete the object with this uid in this version."""


class OrphanCollector:
    """Deletes objects of shared stages without owners.

    Args:
        store: the API server.
        settings: settings of the installation.
        clock: gives the time.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._namespaces = store, settings.watch_namespaces or (None,)
        self._clock = clock

    async def run(self) -> None:
        """Collect once in a while, for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            for kind in KINDS:
                for namespace in self._namespaces:
                    try:
                        await self.collect(kind, namespace)
                    except OperatorError as error:
                        logger.warning("cannot collect %s without owners: %s", kind, error)

    async def collect(self, kind: str, namespace: str | None) -> None:
        """Delete the objects of one kind that nobody owns; one that has changed since it was listed stays.

        Raises:
            OperatorError: the API server does not answer, or refuses.
        """
        managed = {MANAGED_LABEL: MANAGED_BY}
        for one in await self._store.list_metadata(kind, namespace, managed):
            if not is_orphan(one, self._clock()):
                continue
            metadata = one["metadata"]
            logger.info(
                "%s: deleting %s %s: nobody owns it", metadata["namespace"], kind, name_of(one)
            )
            await self._store.delete(
                kind,
                metadata["namespace"],
                name_of(one),
                metadata["uid"],
                foreground=True,
                resource_version=metadata["resourceVersion"],
            )


def is_orphan(manifest: Manifest, now: datetime) -> bool:
    """True for an object of a shared stage that has had no owner for a while."""
    labels, metadata = labels_of(manifest), manifest["metadata"]
    if JOB_LABEL in labels or STAGE_LABEL not in labels or metadata.get("ownerReferences"):
        return False
    age_s = seconds_since(metadata.get("creationTimestamp"), now)
    return age_s > MIN_AGE_S and not is_being_deleted(manifest)
