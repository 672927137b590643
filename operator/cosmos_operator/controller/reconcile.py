"""One pass over one job: observe, decide, write. All I/O of the operator's decisions is here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Protocol

from cosmos_operator.api.base import API_VERSION, KIND
from cosmos_operator.controller.observe import observe
from cosmos_operator.decide.decide import decide, read_status
from cosmos_operator.decide.decision import Action, AddOwner, Create, Decision, Delete, Event
from cosmos_operator.decide.observed import ObjectKey
from cosmos_operator.errors import Refused
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.settings import Settings

logger = logging.getLogger(__name__)

Manifest = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name of a job."""
COMPONENT = "cosmos-operator"


class Counters(Protocol):
    """What a pass reports for the metrics."""

    def note_job(self, key: Key, state: str | None) -> None:
        """The state of a job now; None = it is gone."""

    def note_attempt(self, outcome: str) -> None:
        """An attempt has ended."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(timezone.utc)


class Reconciler:
    """Brings jobs forward, a pass at a time.

    Args:
        cluster: the API server.
        settings: of the installation.
        counters: receives what a pass found.
        clock: gives the time of a pass.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        counters: Counters,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._cluster, self._settings = cluster, settings
        self._counters, self._clock = counters, clock
        # what the API server would not create: a pass tries again, so losing this loses nothing
        self._refusals: dict[Key, dict[ObjectKey, str]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One pass, and a second at once if the API server refused something, to say so in the status.

        Returns:
            Seconds after which the job wants another pass; None = only when something happens.

        Raises:
            ClusterUnavailable: try again later.
        """
        requeue_after_s, refused = await self._pass(key)
        if refused and refused != self._refusals.get(key):
            self._refusals[key] = refused
            requeue_after_s, refused = await self._pass(key)
        if not refused:
            self._refusals.pop(key, None)
            return requeue_after_s
        self._refusals[key] = refused
        return self._settings.poll_seconds

    async def _pass(self, key: Key) -> tuple[float | None, dict[ObjectKey, str]]:
        """One pass; returns the requeue time, and what was refused."""
        namespace, name = key
        document = await self._cluster.get(KIND, namespace, name)
        if document is None:
            self._counters.note_job(key, None)
            return None, {}
        now = self._clock()
        refusals = self._refusals.get(key, {})
        observed = await observe(self._cluster, document, self._settings, now, refusals)
        decision = decide(document, observed, now, self._settings)
        await self._write_status(document, decision)
        return decision.requeue_after_s, await self._act(namespace, decision.actions)

    async def _write_status(self, document: Manifest, decision: Decision) -> None:
        """The status is written before anything is done: an attempt that was stopped has its reason on record."""
        metadata = document["metadata"]
        key = (metadata["namespace"], metadata["name"])
        before, after = document.get("status"), decision.status
        state = (after or before or {}).get("state", "Pending")
        self._counters.note_job(key, state)
        if after is None or after == before:
            return
        await self._cluster.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                # with its uid: a job of the same name that was made since has a status of its own
                "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
                "status": after,
            }
        )
        logger.info("%s/%s %s: %s", *key, state, after.get("message", ""))
        known = {attempt.number: attempt.outcome for attempt in read_status(document).attempts}
        for attempt in after.get("attempts", ()):
            if attempt["outcome"] not in ("Running", known.get(attempt["number"])):
                self._counters.note_attempt(attempt["outcome"])
        for event in decision.events:
            await self._record(document, event)

    async def _act(self, namespace: str, actions: tuple[Action, ...]) -> dict[ObjectKey, str]:
        """Carry the actions out; what the API server refuses is returned, the rest is done all the same."""
        refused: dict[ObjectKey, str] = {}
        for action in actions:
            try:
                await self._do(namespace, action)
            except Refused as error:
                key = _key_of(action)
                logger.warning("%s: %s %s: %s", namespace, *key, error)
                refused[key] = error.message
        return refused

    async def _do(self, namespace: str, action: Action) -> None:
        if isinstance(action, Create):
            metadata = {**action.manifest["metadata"], "namespace": namespace}
            if await self._cluster.create({**action.manifest, "metadata": metadata}):
                logger.info("%s: created %s %s", namespace, *_key_of(action))
        elif isinstance(action, AddOwner):
            await self._cluster.add_owner(action.kind, namespace, action.name, action.owner)
        else:
            logger.info("%s: deletes %s %s: %s", namespace, action.kind, action.name, action.why)
            await self._cluster.delete(
                action.kind, namespace, action.name, action.uid, foreground=action.foreground
            )

    async def _record(self, document: Manifest, event: Event) -> None:
        """Write an Event; one that cannot be written is only logged."""
        metadata, now = document["metadata"], self._clock()
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{time.time_ns():x}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "reason": event.reason,
            "message": event.message,
            "type": "Warning" if event.is_warning else "Normal",
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            await self._cluster.record_event(manifest)
        except Refused as error:
            logger.warning("event %s: %s", event.reason, error)


def _key_of(action: Action) -> ObjectKey:
    if isinstance(action, Create):
        return str(action.manifest["kind"]), str(action.manifest["metadata"]["name"])
    assert isinstance(action, AddOwner | Delete)
    return action.kind, action.name
