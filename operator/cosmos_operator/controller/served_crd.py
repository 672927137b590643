"""The schema that the API server has of our resources, compared with that of this version, which it may lack parts of.

A CustomResourceDefinition that is older than the operator would refuse a whole status for one unknown field or word. So
what it lacks is left out of every status, and told: in /readyz, in the log, by a metric, and by an event of each job.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from cosmos_operator.api.crd import build_crds
from cosmos_operator.api.served_schema import fit, lacking
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.kinds import JOB_KINDS, Manifest

PERIOD_S = 600.0
"""Seconds after which the schema is asked for again."""
UNTOLD_S = 60.0
"""The same while the API server does not tell it, as for some seconds after a CustomResourceDefinition is created."""
MAX_NAMED = 5
"""Fields that a message names."""
REMEDY = "cosmos crd | kubectl apply --server-side --force-conflicts -f -"
"""Command that brings the CustomResourceDefinitions of this version."""

logger = logging.getLogger(__name__)

Schema = Mapping[str, Any]


class Source(Protocol):
    """The request that a comparison needs."""

    async def served_schema(self, kind: str) -> Schema | None:
        """The schema of a kind as the API server has it; None if it does not tell."""


def own_schemas() -> dict[str, Schema]:
    """The schema of each job kind in the CustomResourceDefinitions of this version."""
    versions = {
        crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for crd in build_crds()
    }
    return {kind: versions[kind] for kind in JOB_KINDS}


class ServedCrd:
    """The schemas of our resources on the API server.

    Args:
        source: the API server.
        clock: a clock that never goes back, in seconds.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._own = own_schemas()
        self._served: dict[str, Schema] = {}
        self._lacks: dict[str, tuple[str, ...]] = {}
        self._until = 0.0

    async def keep_fresh(self) -> None:
        """Ask for the schemas again and again, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(UNTOLD_S)

    async def refresh(self, *, at_once: bool = False) -> None:
        """Ask for the schemas, if the last answer is too old."""
        if self._clock() < self._until and not at_once:
            return
        self._until = self._clock() + PERIOD_S
        for kind, own in self._own.items():
            try:
                served = await self._source.served_schema(kind)
            except OperatorError as error:
                logger.info("cannot read the schema of %s: %s", kind, error)
                continue
            self._take(kind, own, served)

    def _take(self, kind: str, own: Schema, served: Schema | None) -> None:
        if served is None:
            self._until = min(self._until, self._clock() + UNTOLD_S)
            self._served.pop(kind, None)
            self._lacks.pop(kind, None)
            return
        self._served[kind] = served
        parts = ("spec", "status")
        lacks = tuple(
            path
            for part in parts
            for path in lacking(
                served.get("properties", {}).get(part, {}), own["properties"][part], part
            )
        )
        if lacks and lacks != self._lacks.get(kind):
            logger.warning("%s", _describe(kind, lacks))
        self._lacks[kind] = lacks

    def fit(self, kind: str, status: Manifest) -> Manifest:
        """A status without what the API server's schema lacks."""
        served = self._served.get(kind)
        if served is None or not self._lacks.get(kind):
            return status
        fitted: Manifest = fit(status, served.get("properties", {}).get("status", {}))
        return fitted

    def problem(self, kind: str) -> str:
        """A sentence on what the API server's schema of a kind lacks, and what to do; empty if it lacks nothing."""
        lacks = self._lacks.get(kind)
        return _describe(kind, lacks) if lacks else ""

    def problems(self) -> Iterator[str]:
        """Sentences on what the API server's schemas lack, one line a kind."""
        for kind in self._own:
            if problem := self.problem(kind):
                yield problem

    def num_lacking(self) -> int:
        """Number of fields and words that the API server's schemas lack."""
        return sum(map(len, self._lacks.values()))


def _describe(kind: str, lacks: tuple[str, ...]) -> str:
    named = ", ".join(lacks[:MAX_NAMED])
    more = f" and {len(lacks) - MAX_NAMED} more" if len(lacks) > MAX_NAMED else ""
    return (
        f"the CustomResourceDefinition of {kind} is older than this operator and lacks {named}{more}, which are not "
        f"written; bring that of this version: {REMEDY}"
    )
