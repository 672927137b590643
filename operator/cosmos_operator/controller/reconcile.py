"""One pass over one job: plan, observe, decide, write the status, carry out the actions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from cosmos_operator.api.base import API_VERSION, INFERENCE_KIND
from cosmos_operator.api.labels import JOB_LABELS
from cosmos_operator.api.status import read_status
from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.carry_out import Executor, Memory
from cosmos_operator.controller.event_manifest import build_event
from cosmos_operator.controller.inference_plans import InferencePlans, news_for_inference
from cosmos_operator.controller.informer import INFORMED, OURS
from cosmos_operator.controller.observe import Observer, interests
from cosmos_operator.controller.planning_process import Planner
from cosmos_operator.controller.plans import Plans
from cosmos_operator.controller.rare_reads import RareReads
from cosmos_operator.controller.router import Router
from cosmos_operator.controller.served_crd import ServedCrd
from cosmos_operator.controller.status_pace import StatusPace
from cosmos_operator.controller.trim import has_ended, is_new, was_edited
from cosmos_operator.decide.decide import decide, is_finished
from cosmos_operator.decide.decision import Decision, Event
from cosmos_operator.errors import Conflict, Refused
from cosmos_operator.kube.kinds import OPTIONAL_KINDS, JobKey, Manifest
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.settings import Settings

logger = logging.getLogger(__name__)

MAX_ROUNDS = 4
"""Passes over a job that follow one another at once, each because the one before has learned something new."""


class Counters(Protocol):
    """The metrics to which a pass reports."""

    def note_job(self, key: JobKey, state: str | None) -> None:
        """Take note of the state of a job; None = the job is gone."""

    def note_attempt(self, outcome: str) -> None:
        """Count an attempt that has ended."""

    def note_gpu_hours(self, kind: str, hours: float) -> None:
        """Add GPU hours that a training used, repeated or waited for."""


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Reconciler:
    """Brings jobs forward, one pass at a time.

    Args:
        cluster: the API server, for what is written and what no watch delivers.
        cache: what the watches deliver; takes up at once what is written.
        router: learns which objects a job looks at.
        settings: settings of the installation.
        counters: receives what a pass found.
        wake: asks for a pass over another job, of which this one has changed an object.
        clock: gives the time of a pass.
        crd: the schemas of the API server, which a status must fit.
        planner: plans the jobs; omitted: in this process.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        router: Router,
        settings: Settings,
        counters: Counters,
        wake: Callable[[JobKey], object],
        clock: Callable[[], datetime] = utc_now,
        *,
        crd: ServedCrd | None = None,
        planner: Planner | None = None,
    ) -> None:
        self._crd = crd or ServedCrd(cluster)
        self._told: set[tuple[str, str]] = set()
        self._cluster, self._cache, self._router = cluster, cache, router
        self._settings, self._counters, self._clock = settings, counters, clock
        self._executor = Executor(cluster, cache, router, wake)
        self._reads = RareReads(cluster, settings)
        self._observer = Observer(cluster, cache, self._reads, settings, planner)
        self._plans, self._pace = Plans(settings, planner), StatusPace()
        self._inference_plans = InferencePlans(cluster, cache, self._plans, settings)
        self._wake = wake
        self._memories: dict[JobKey, Memory] = {}

    async def reconcile(self, key: JobKey) -> float | None:
        """Carry out one pass, and more at once while each learns something that the next must know.

        Returns:
            Seconds after which the job wants another pass; None = only when something happens.

        Raises:
            ClusterUnavailable: try again later.
        """
        for _ in range(MAX_ROUNDS):
            requeue_after_s, has_learned = await self._pass(key)
            if not has_learned:
                return requeue_after_s
        return self._settings.poll_seconds

    async def _pass(self, key: JobKey) -> tuple[float | None, bool]:
        """Carry out one pass; returns the requeue time, and True if the next pass would know more."""
        document = self._cache.get(key.kind, key.namespace, key.name)
        if document is None:
            self._forget(key)
            self._counters.note_job(key, None)
            return None, False
        memory = self._memories.setdefault(key, Memory())
        is_over = has_ended(document)
        if is_over and was_edited(document):  # the cache has no more than a part of it
            document = await self._cluster.get(key.kind, key.namespace, key.name) or document
        if self._cache.is_retired(key) and not is_over:
            await self._take_up(key)
        await self._look_at_foreign(key, memory)
        plan = await self._plan(key, document, is_over=is_over)
        if is_over and not is_finished(plan.previous, document):
            return None, False  # a status of another version of the operator
        if plan.job is not None:  # before anything is read, so that no change goes unnoticed
            self._router.note_interest(key, interests(plan, plan.job))
        now = self._clock()
        observed = await self._observer.observe(key, plan, now, memory.refusals, memory.foreign)
        decision = self._fitted(key, decide(plan, observed, now, self._settings))
        self._note_awaited_kind(key, is_awaited=decision.awaits_kind)
        if _has_no_pass(plan, decision) and await self._executor.begin(
            key, decision.actions, memory
        ):
            return 0.0, False  # the status follows once other new jobs have begun
        return await self._write(key, plan, decision, memory, is_over=is_over)

    async def _write(
        self, key: JobKey, plan: JobPlan, decision: Decision, memory: Memory, *, is_over: bool
    ) -> tuple[float | None, bool]:
        """Write the status, carry out the actions, tell events; returns what a pass does."""
        wait_s = self._wait_s(key, plan, decision)
        try:
            has_written = not wait_s and await self._write_status(key, plan, decision)
        except Conflict as error:
            logger.info("%s: %s", key, error)
            await self._read_again(key)
            return None, True
        except Refused as error:
            await self._tell_refused(key, plan, error)
            return self._settings.poll_seconds, False
        has_learned = await self._executor.carry_out(key, decision.actions, memory)
        if has_written:
            await self._report(plan, decision)
            await self._tell_old_crd(key, plan)
        if is_over and not decision.actions and not self._cache.has_objects(key):
            self._retire(key)
        ends_now = has_written and not is_over and self._is_over(key)
        waits = [wait_s or None, self._settings.poll_seconds if memory.refusals else None]
        times = [one for one in (*waits, decision.requeue_after_s) if one is not None]
        return min(times, default=None), has_learned or ends_now

    # --- the job ---------------------------------------------------------------------------------

    async def _plan(self, key: JobKey, document: Manifest, *, is_over: bool) -> JobPlan:
        """The plan of a job; of one that has ended nothing is planned, and its document is not whole."""
        if is_over:
            return JobPlan(document, read_status(document))
        wanted = self._cache.wanted(key)
        if key.kind == INFERENCE_KIND:
            return await self._inference_plans.plan(key, wanted, document)
        return await self._plans.plan(key, wanted, document)

    def _is_over(self, key: JobKey) -> bool:
        document = self._cache.get(key.kind, key.namespace, key.name)
        return document is not None and has_ended(document)

    async def _read_again(self, key: JobKey) -> None:
        """Read a job of which the API server has a newer version than the cache."""
        job = await self._cluster.get(key.kind, key.namespace, key.name)
        if job is not None:
            self._cache.put(key.kind, job)
            return
        known = self._cache.get(key.kind, key.namespace, key.name)
        if known is not None:
            self._cache.remove(key.kind, key.namespace, key.name, known["metadata"]["uid"])

    async def _take_up(self, key: JobKey) -> None:
        """Put the objects of a job into the cache, which were forgotten when it had ended."""
        self._cache.take_up(key)
        labels = {JOB_LABELS[key.kind]: key.name}
        for kind, selector in INFORMED.items():
            is_served = kind not in OPTIONAL_KINDS or kind in self._cache.served
            if selector == OURS and is_served:
                for one in await self._cluster.list(kind, key.namespace, labels):
                    self._cache.put(kind, one, is_needed=True)

    def _retire(self, key: JobKey) -> None:
        """Forget a job that has ended and of which no object is left."""
        self._cache.retire(key)
        self._forget(key)

    def _note_awaited_kind(self, key: JobKey, *, is_awaited: bool) -> None:
        """Note whether the job needs a kind that the API server has not; the watcher then looks for it more often."""
        if is_awaited:
            self._cache.awaiting_kinds.add(key)
        else:
            self._cache.awaiting_kinds.discard(key)

    def _forget(self, key: JobKey) -> None:
        self._note_awaited_kind(key, is_awaited=False)
        self._memories.pop(key, None)
        self._plans.forget(key)
        self._pace.forget(key)
        self._reads.forget(key)
        self._router.note_interest(key, frozenset())

    async def _look_at_foreign(self, key: JobKey, memory: Memory) -> None:
        """Read anew the objects of other people that stand in the job's way: no watch tells of them."""
        for kind, name in list(memory.foreign):
            found = await self._cluster.get(kind, key.namespace, name)
            if found is None:
                del memory.foreign[kind, name]
            else:
                memory.foreign[kind, name] = found

    # --- a CustomResourceDefinition of another version -------------------------------------------

    def _fitted(self, key: JobKey, decision: Decision) -> Decision:
        """A decision whose status has nothing that the API server does not know."""
        if decision.status is None:
            return decision
        return replace(decision, status=self._crd.fit(key.kind, decision.status))

    async def _tell_old_crd(self, key: JobKey, plan: JobPlan) -> None:
        """Write an event, once for each job, if the API server lacks parts of the status."""
        if problem := self._crd.problem(key.kind):
            await self._tell_once(plan, Event("CrdTooOld", problem, is_warning=True))

    async def _tell_refused(self, key: JobKey, plan: JobPlan, error: Refused) -> None:
        """Write an event about a status that the API server refuses, and look whether its schema is another one now."""
        logger.warning("%s: the API server refuses the status: %s", key, error)
        await self._crd.refresh(at_once=True)
        message = f"the API server refuses the status of this job: {error.message}"
        problem = self._crd.problem(key.kind)
        text = f"{message}; {problem}" if problem else message
        await self._tell_once(plan, Event("StatusRefused", text[:1000], is_warning=True))

    async def _tell_once(self, plan: JobPlan, event: Event) -> None:
        told = (str(plan.document["metadata"]["uid"]), event.reason)
        if told not in self._told:
            self._told.add(told)
            await self._write_event(plan, event)

    # --- writing ---------------------------------------------------------------------------------

    def _wait_s(self, key: JobKey, plan: JobPlan, decision: Decision) -> float:
        """Seconds to wait before the status is written; 0 = write it now."""
        before, after = plan.document.get("status"), decision.status
        if after is None or after == before or decision.actions:
            self._pace.note_write(key)
            return 0.0
        return self._pace.wait_s(key, before, after)

    async def _write_status(self, key: JobKey, plan: JobPlan, decision: Decision) -> bool:
        """Write the status before anything is done, so that an attempt that is stopped has its reason in it.

        Returns:
            False if the status is what it was.

        Raises:
            Conflict: somebody has changed the job since it was read, or created it anew.
        """
        metadata = plan.document["metadata"]
        before, after = plan.document.get("status"), decision.status
        state = (after or before or {}).get("state", "Pending")
        self._counters.note_job(key, state)
        if after is None or after == before:
            return False
        # with its resourceVersion: a job that was created since under the same name has a status of its own
        names = ("name", "namespace", "uid", "resourceVersion")
        written = await self._cluster.apply_status(
            {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "metadata": {name: metadata[name] for name in names},
                "status": after,
            }
        )
        self._cache.put(key.kind, written)
        if news_for_inference(plan.document) != news_for_inference(written):
            for other in self._router.interested(key.namespace, (key.kind, key.name)):
                self._wake(other)
        logger.info("%s %s: %s", key, state, after.get("message", ""))
        return True

    async def _report(self, plan: JobPlan, decision: Decision) -> None:
        """Count the attempts that have ended, and write the events."""
        known = {attempt.number: attempt.outcome for attempt in plan.previous.attempts}
        for attempt in (decision.status or {}).get("attempts", ()):
            if attempt["outcome"] not in ("Running", known.get(attempt["number"])):
                self._counters.note_attempt(attempt["outcome"])
        self._count_gpu_hours(plan, decision)
        for event in decision.events:
            await self._write_event(plan, event)

    def _count_gpu_hours(self, plan: JobPlan, decision: Decision) -> None:
        """Add what a job's GPU hours have grown by; a correction downwards is left out, as counters only grow."""
        before, after = plan.previous.gpu_hours, (decision.status or {}).get("gpuHours") or {}
        for kind, text in after.items():
            grown = float(text) - float(getattr(before, kind, "0") if before else "0")
            if grown > 0:
                self._counters.note_gpu_hours(kind, grown)

    async def _write_event(self, plan: JobPlan, event: Event) -> None:
        """Write an Event; one that the API server refuses is only logged."""
        try:
            await self._cluster.create_event(build_event(plan.document, event, self._clock()))
        except Refused as error:
            logger.warning("cannot write the event %s: %s", event.reason, error)


def _has_no_pass(plan: JobPlan, decision: Decision) -> bool:
    """True for a new job whose training does not begin at once: no attempt must begin unrecorded."""
    return is_new(plan.document) and not (decision.status or {}).get("attempts")
