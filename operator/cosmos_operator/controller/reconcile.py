"""One pass over one job: plan, observe, decide, write the status, carry out the actions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from cosmos_operator.api.base import API_VERSION
from cosmos_operator.controller.observe import observe
from cosmos_operator.decide.decide import decide
from cosmos_operator.decide.decision import Action, AddOwner, Create, Decision, Delete, Event
from cosmos_operator.errors import Refused
from cosmos_operator.kube.kinds import JobKey, Manifest, ObjectKey
from cosmos_operator.kube.objects import format_time, name_of
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.job_plan import JobPlan, plan_job
from cosmos_operator.settings import Settings

logger = logging.getLogger(__name__)

COMPONENT = "cosmos-operator"
"""Source of the Events that the operator writes."""


class Counters(Protocol):
    """The metrics to which a pass reports."""

    def note_job(self, key: JobKey, state: str | None) -> None:
        """Take note of the state of a job; None = the job is gone."""

    def note_attempt(self, outcome: str) -> None:
        """Count an attempt that has ended."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Reconciler:
    """Brings jobs forward, one pass at a time.

    Args:
        cluster: the API server.
        settings: settings of the installation.
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
        # what the API server refused to create: each pass tries again, so losing this loses nothing
        self._refusals: dict[JobKey, dict[ObjectKey, str]] = {}

    async def reconcile(self, key: JobKey) -> float | None:
        """Carry out one pass, and a second at once if the API server refused something, to say so in the status.

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

    async def _pass(self, key: JobKey) -> tuple[float | None, dict[ObjectKey, str]]:
        """Carry out one pass; returns the requeue time, and what was refused."""
        document = await self._cluster.get(key.kind, key.namespace, key.name)
        if document is None:
            self._counters.note_job(key, None)
            return None, {}
        plan, now = plan_job(document), self._clock()
        refusals = self._refusals.get(key, {})
        observed = await observe(self._cluster, plan, self._settings, now, refusals)
        decision = decide(plan, observed, now, self._settings)
        await self._write_status(key, plan, decision)
        return decision.requeue_after_s, await self._carry_out(key.namespace, decision.actions)

    async def _write_status(self, key: JobKey, plan: JobPlan, decision: Decision) -> None:
        """Write the status before anything is done, so that an attempt that is stopped has its reason in it."""
        metadata = plan.document["metadata"]
        before, after = plan.document.get("status"), decision.status
        state = (after or before or {}).get("state", "Pending")
        self._counters.note_job(key, state)
        if after is None or after == before:
            return
        await self._cluster.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                # with its uid: a job that was created since under the same name has a status of its own
                "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
                "status": after,
            }
        )
        logger.info("%s %s: %s", key, state, after.get("message", ""))
        known = {attempt.number: attempt.outcome for attempt in plan.previous.attempts}
        for attempt in after.get("attempts", ()):
            if attempt["outcome"] not in ("Running", known.get(attempt["number"])):
                self._counters.note_attempt(attempt["outcome"])
        for event in decision.events:
            await self._write_event(plan.document, event)

    async def _write_event(self, document: Manifest, event: Event) -> None:
        """Write an Event; one that the API server refuses is only logged."""
        try:
            await self._cluster.create_event(build_event(document, event, self._clock()))
        except Refused as error:
            logger.warning("cannot write the event %s: %s", event.reason, error)

    async def _carry_out(self, namespace: str, actions: tuple[Action, ...]) -> dict[ObjectKey, str]:
        """Carry out all actions; returns those that the API server refused, and why."""
        refused: dict[ObjectKey, str] = {}
        for action in actions:
            try:
                await self._execute(namespace, action)
            except Refused as error:
                key = _key_of(action)
                logger.warning("%s: %s %s: %s", namespace, *key, error)
                refused[key] = error.message
        return refused

    async def _execute(self, namespace: str, action: Action) -> None:
        if isinstance(action, Create):
            metadata = {**action.manifest["metadata"], "namespace": namespace}
            if await self._cluster.create({**action.manifest, "metadata": metadata}):
                logger.info("%s: created %s %s", namespace, *_key_of(action))
        elif isinstance(action, AddOwner):
            await self._cluster.add_owner(action.kind, namespace, action.name, action.owner)
        else:
            logger.info(
                "%s: deleting %s %s: %s", namespace, action.kind, action.name, action.reason
            )
            await self._cluster.delete(
                action.kind, namespace, action.name, action.uid, foreground=action.foreground
            )


def build_event(document: Manifest, event: Event, now: datetime) -> Manifest:
    """The manifest of an Event about a job."""
    metadata, stamp = document["metadata"], format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{time.time_ns():x}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": document["kind"],
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


def _key_of(action: Action) -> ObjectKey:
    if isinstance(action, Create):
        return str(action.manifest["kind"]), name_of(action.manifest)
    assert isinstance(action, AddOwner | Delete)
    return action.kind, action.name
