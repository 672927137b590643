"""Reads of a pass from the API server itself, where no watch delivers: logs, events, nodes, storage classes.

Each is read only when a pass needs it and the last answer is too old, and is remembered meanwhile.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from cosmos_operator.api.base import KIND
from cosmos_operator.controller.trim import trim
from cosmos_operator.kube.containers import worker_end, worker_name
from cosmos_operator.kube.kinds import JobKey, Manifest, ObjectKey
from cosmos_operator.kube.objects import name_of, seconds_since
from cosmos_operator.kube.pods import is_over
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.settings import Settings

NODES_S = 10.0
"""Seconds for which a list of nodes is used."""
CLASSES_S = 60.0
"""Seconds for which a storage class is used."""
OTHERS_S = 60.0
"""Seconds for which another job is used."""
EARLY = 0.75
"""Part of the poll interval after which something may be read again: passes do not come to the second."""


@dataclass
class _Log:
    """The end of a pod's log."""

    read_at: float
    changed_at: float
    """Time at which its text was last another than before."""
    data: bytes | None = b""
    """Its text, compressed; empty before it was read; None = there is none."""
    is_final: bool = False
    """True if it was read after the worker had ended."""


class RareReads:
    """Reads on demand, with a memory.

    Args:
        cluster: the API server.
        settings: say how often a log or the events of an object are read.
        clock: a clock that never goes back, in seconds.
    """

    def __init__(
        self, cluster: Cluster, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._settings, self._clock = cluster, settings, clock
        self._nodes: tuple[Manifest, ...] = ()
        self._nodes_until = 0.0
        self._classes: dict[str, tuple[float, Manifest | None]] = {}
        self._others: dict[tuple[str, str], tuple[float, Manifest | None]] = {}
        self._logs: dict[JobKey, dict[str, _Log]] = {}
        self._warnings: dict[JobKey, dict[str, tuple[float, str]]] = {}

    def forget(self, job: JobKey) -> None:
        """Forget what was read for a job."""
        self._logs.pop(job, None)
        self._warnings.pop(job, None)

    async def nodes(self) -> tuple[Manifest, ...]:
        """The nodes of the cluster."""
        if self._clock() >= self._nodes_until:
            found = await self._cluster.list("Node", None)
            self._nodes = tuple(trim("Node", node) for node in found)
            self._nodes_until = self._clock() + NODES_S
        return self._nodes

    async def storage_classes(self, names: Iterable[str]) -> dict[str, Manifest]:
        """Those of these storage classes that exist."""
        found = {}
        for name in sorted(names):
            until, storage_class = self._classes.get(name, (0.0, None))
            if self._clock() >= until:
                storage_class = await self._cluster.get("StorageClass", None, name)
                self._classes[name] = (self._clock() + CLASSES_S, storage_class)
            if storage_class is not None:
                found[name] = storage_class
        return found

    async def other_job(self, job: JobKey, name: str) -> Manifest | None:
        """Another job of the same namespace, whole, although it may have ended; None if there is none."""
        place = (job.namespace, name)
        until, found = self._others.get(place, (0.0, None))
        if self._clock() >= until:
            found = await self._cluster.get(KIND, *place)
            self._others[place] = (self._clock() + OTHERS_S, found)
        return found

    async def logs(
        self,
        job: JobKey,
        pods: Iterable[tuple[Manifest, int]],
        now: datetime,
        stall_timeout_s: float,
    ) -> dict[str, str]:
        """Last lines of the workers' logs, as many as stand beside each pod; the logs of other pods are forgotten.

        A log is read a poll interval after the pod has started, then once in each, at every pass when the pod may have
        stalled, and once at its end.
        """
        before, after = self._logs.get(job, {}), {}
        found = {}
        for pod, num_lines in pods:
            has_ended = is_over(pod) or worker_end(pod) is not None
            uid, age_s = pod["metadata"]["uid"], seconds_since(pod["status"].get("startTime"), now)
            log = before.get(uid) or _Log(self._clock() - age_s, self._clock() - age_s)
            if not log.is_final and (has_ended or self._is_due(log, age_s, stall_timeout_s)):
                log = await self._read_log(job, pod, log, num_lines)
            after[uid] = log
            if log.data is not None:
                found[name_of(pod)] = zlib.decompress(log.data).decode() if log.data else ""
        if after:
            self._logs[job] = after
        else:
            self._logs.pop(job, None)
        return found

    def _is_due(self, log: _Log, age_s: float, stall_timeout_s: float) -> bool:
        now = self._clock()
        may_have_stalled = now - log.changed_at >= stall_timeout_s - 4 * self._settings.poll_seconds
        return may_have_stalled or now - log.read_at >= self._settings.poll_s(age_s) * EARLY

    async def _read_log(self, job: JobKey, pod: Manifest, before: _Log, num_lines: int) -> _Log:
        container = worker_name(pod)
        text = await self._cluster.read_log(job.namespace, name_of(pod), container, num_lines)
        data = zlib.compress(text.encode(), 1) if text is not None else None
        now = self._clock()
        changed_at = before.changed_at if data == before.data else now
        return _Log(now, changed_at, data, is_over(pod) or worker_end(pod) is not None)

    async def warnings(
        self, job: JobKey, objects: Iterable[tuple[str, Manifest]]
    ) -> dict[ObjectKey, str]:
        """Message of the latest warning event of each object that has one; kinds come with the objects."""
        before, after = self._warnings.get(job, {}), {}
        found: dict[ObjectKey, str] = {}
        for kind, one in objects:
            uid = one["metadata"]["uid"]
            read_at, text = before.get(uid, (None, ""))
            if read_at is None or self._clock() - read_at >= self._settings.poll_seconds * EARLY:
                read_at, text = self._clock(), await self._read_warning(job, kind, name_of(one))
            after[uid] = (read_at, text)
            if text:
                found[kind, name_of(one)] = text
        if after:
            self._warnings[job] = after
        else:
            self._warnings.pop(job, None)
        return found

    async def _read_warning(self, job: JobKey, kind: str, name: str) -> str:
        fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events = await self._cluster.list("Event", job.namespace, fields=fields)
        if not events:
            return ""
        newest = max(events, key=_time_of)
        return " ".join(str(newest.get("message", "")).split())


def _time_of(event: Manifest) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
