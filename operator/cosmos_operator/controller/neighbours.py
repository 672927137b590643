"""Notices other installations that carry out the same jobs: each says on its Lease which namespaces it watches.

Two installations that watch the same namespace both act on its jobs, with settings and a version of their own. Nothing
is done about it but to say so: which of the two should go, only people know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL, WATCHED_ANNOTATION
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.errors import OperatorError, Refused
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.settings import Settings

ALL_NAMESPACES = "*"
"""Value of the annotation of an installation that watches all namespaces."""
SECOND_LOOK_S = 10.0
"""Seconds until the second look: only a Lease that was renewed between two looks belongs to an operator that runs."""
LOOK_S = 60.0
"""Seconds between two later looks."""

logger = logging.getLogger(__name__)


class LeaseList(Protocol):
    """The request that a look needs."""

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Manifest]:
        """All objects with these labels."""


def marks(watch_namespaces: Sequence[str]) -> Manifest:
    """Labels and annotations by which the Lease of an installation says what it watches.

    Args:
        watch_namespaces: namespaces whose jobs are carried out; empty = all.
    """
    watched = ",".join(sorted(watch_namespaces)) or ALL_NAMESPACES
    return {"labels": {MANAGED_LABEL: MANAGED_BY}, "annotations": {WATCHED_ANNOTATION: watched}}


def shared_namespaces(ours: Sequence[str], theirs: str) -> str:
    """Namespaces that two installations watch, in words; empty if there are none.

    Args:
        ours: our namespaces; empty = all.
        theirs: the annotation of the other one.
    """
    others = set(theirs.split(",")) - {""}
    if ALL_NAMESPACES not in others and ours:
        others &= set(ours)
    elif ours:
        others = set(ours)
    return "all namespaces" if ALL_NAMESPACES in others else ", ".join(sorted(others))


class Neighbours:
    """Other installations that watch namespaces of ours.

    Args:
        leases: the API server.
        settings: settings of this installation.
        metrics: receive the number of such installations.
    """

    def __init__(self, leases: LeaseList, settings: Settings, metrics: Metrics) -> None:
        self._leases = leases
        self._settings = settings
        self._metrics = metrics
        self._renewals: dict[str, str] = {}
        self._found: dict[str, str] = {}
        self._is_refused = False

    def notes(self) -> Iterator[str]:
        """Installations that carry out the same jobs, one line each."""
        for name, namespaces in self._found.items():
            yield (
                f"the installation {name} carries out the jobs of {namespaces} too; uninstall one of the two, or give "
                "each its own watchNamespaces"
            )

    async def look_out(self) -> None:
        """Look for them for ever."""
        await self.look()
        await asyncio.sleep(SECOND_LOOK_S)
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Read the Leases of other installations; what has changed is logged."""
        own = self._settings.lease
        where = None if self._settings.can_list_nodes else own.namespace
        try:
            listed = await self._leases.list("Lease", where, {MANAGED_LABEL: MANAGED_BY})
        except Refused as error:
            if not self._is_refused:
                self._is_refused = True
                logger.info(
                    "other installations would not be noticed: cannot list Leases: %s", error
                )
            return
        except OperatorError as error:
            logger.debug("cannot list Leases: %s", error)
            return
        before, renewals, found = self._found, self._renewals, {}
        self._renewals = {}
        for lease in listed:
            name = f"{lease['metadata']['namespace']}/{lease['metadata']['name']}"
            shared = shared_namespaces(
                self._settings.watch_namespaces,
                (lease["metadata"].get("annotations") or {}).get(WATCHED_ANNOTATION, ""),
            )
            spec = lease.get("spec") or {}
            if (
                name == f"{own.namespace}/{own.name}"
                or not shared
                or not spec.get("holderIdentity")
            ):
                continue
            self._renewals[name] = str(spec.get("renewTime"))
            if renewals.get(name, self._renewals[name]) != self._renewals[name]:
                found[name] = shared
        self._found = found
        self._metrics.note_other_installations(len(found))
        self._log_changes(before)

    def _log_changes(self, before: Mapping[str, str]) -> None:
        if self._found == before:
            return
        for note in self.notes():
            logger.warning("%s", note)
        for name in before.keys() - self._found.keys():
            logger.info("the installation %s no longer carries out the same jobs", name)
