"""Logs of a job: the pods of its stages, one after another, and the lines of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from cosmos_operator.api.labels import (
    JOB_LABELS,
    JOB_NAME_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    STAGE_LABEL,
)
from cosmos_operator.client.jobs import POLL_S, outcome_of, title
from cosmos_operator.errors import ClusterUnavailable, InvalidSpec, Refused
from cosmos_operator.kube.cluster import KubeCluster
from cosmos_operator.kube.containers import has_started, worker_end, worker_name
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import labels_of, name_of, owner_uids
from cosmos_operator.kube.pods import is_over, obstacle_of
from cosmos_operator.plan.backend import BACKENDS

SILENCE_S = 60.0
"""Seconds without a line after which a log is opened anew, in case that its connection is dead."""
REOPEN_S = 0.5
"""Seconds before a log whose connection has ended is read on."""
MANAGED = {MANAGED_LABEL: MANAGED_BY}


@dataclass(frozen=True)
class Line:
    """A line for people: of a log, or about it."""

    text: str
    is_note: bool = False
    """True for a line that says whose log follows, or what is waited for."""


@dataclass
class _Position:
    """The place in a log up to which it has been shown."""

    time: str = ""
    shown: int = 0
    """Number of lines with this time that have been shown."""
    repeated: int = field(default=0)
    """Number of those that were read again since the log was opened anew."""

    def is_new(self, time: str) -> bool:
        """True for a line that has not been shown; the log is read in order, with the times of its lines."""
        if time < self.time:
            return False
        if time > self.time:
            self.time, self.shown, self.repeated = time, 1, 1
            return True
        self.repeated += 1
        if self.repeated <= self.shown:
            return False
        self.shown = self.repeated
        return True


async def pods_of(cluster: KubeCluster, job: Manifest, stage: str | None) -> list[Manifest]:
    """The pods of a job with a log to show, the earliest first: of the training that of rank 0, and shared stages too.

    Args:
        cluster: the API server.
        job: the job.
        stage: name of the only stage to show; None = all.
    """
    namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
    own = (JOB_LABELS[job["kind"]], name_of(job))
    workloads = await cluster.list("Job", namespace, MANAGED)
    used = {name_of(workload) for workload in workloads if uid in owner_uids(workload)}
    pods = await cluster.list("Pod", namespace, MANAGED)
    mine = [
        pod
        for pod in pods
        if own in labels_of(pod).items() or labels_of(pod).get(JOB_NAME_LABEL) in used
    ]
    chosen = [pod for pod in _leaders(mine) if stage in (None, labels_of(pod).get(STAGE_LABEL))]
    return sorted(chosen, key=lambda pod: (pod["metadata"]["creationTimestamp"], name_of(pod)))


def _leaders(pods: Iterable[Manifest]) -> list[Manifest]:
    """The pods without those of other ranks of a training."""
    leaders = [backend.leader_labels for backend in BACKENDS.values()]
    return [
        pod
        for pod in pods
        if labels_of(pod).get(STAGE_LABEL) != "train"
        or any(one.items() <= labels_of(pod).items() for one in leaders)
    ]


async def show(
    cluster: KubeCluster, job: Manifest, stage: str | None, tail: int | None
) -> AsyncGenerator[Line, None]:
    """The log of the current stage as it is now: of the last pod that has begun.

    Raises:
        InvalidSpec: no pod has begun.
    """
    pods = await pods_of(cluster, job, stage)
    begun = [pod for pod in pods if has_started(pod)]
    running = [pod for pod in begun if not is_over(pod)]
    if not begun:
        for line in _without_pods(job, pods, stage):
            yield line
        return
    pod = (running or begun)[-1]
    yield _header(pod)
    query = (("tailLines", str(tail)),) if tail is not None else ()
    namespace = pod["metadata"]["namespace"]
    lines = cluster.follow_log(namespace, name_of(pod), worker_name(pod), query, SILENCE_S)
    async for text in lines:
        yield Line(text)


def _without_pods(job: Manifest, pods: list[Manifest], stage: str | None) -> list[Line]:
    """The lines for a job of which no pod has begun: what it waits for, or what its status keeps of earlier logs.

    Raises:
        InvalidSpec: there is nothing to show.
    """
    if obstacle := next((found for pod in pods if (found := obstacle_of(pod))), None):
        raise InvalidSpec([f"{title(job)}: no log yet: {obstacle.message}"])
    status = job.get("status") or {}
    kept = [
        one
        for one in status.get("stages") or ()
        if stage in (None, one["name"]) and one.get("lastLines")
    ]
    if not kept:
        state, message = status.get("state", "Pending"), status.get("message", "")
        where = f"stage {stage!r} has no pod" if stage else "it has no pod"
        raise InvalidSpec([f"{title(job)}: no log: {where} now ({state}: {message})"])
    last = kept[-1]
    note = f"==> {last['name']}: its pod is gone; the last lines of its log <=="
    return [Line(note, is_note=True), *(Line(str(text)) for text in last["lastLines"])]


async def follow(
    cluster: KubeCluster, job: Manifest, stage: str | None, tail: int | None, poll_s: float = POLL_S
) -> AsyncGenerator[Line, None]:
    """The logs of a job from its current stage on, until it has ended.

    Args:
        cluster: the API server.
        job: the job.
        stage: name of the only stage to show; None = all.
        tail: lines of what the first pod has written before; None = all of them.
        poll_s: seconds between two looks at what comes next.
    """
    shown: set[str] = set()
    for pod in await pods_of(cluster, job, stage):  # of what is over, only the last is shown
        if is_over(pod):
            shown.add(pod["metadata"]["uid"])
    waited_for = ""
    while True:
        found = await cluster.get(job["kind"], job["metadata"]["namespace"], name_of(job))
        if found is None or found["metadata"]["uid"] != job["metadata"]["uid"]:
            return
        pods = await pods_of(cluster, job, stage)
        fresh = [pod for pod in pods if pod["metadata"]["uid"] not in shown]
        ready = next((pod for pod in fresh if has_started(pod)), None)
        if ready is not None:
            shown.add(ready["metadata"]["uid"])
            yield _header(ready)
            lines = _follow_pod(cluster, ready, tail, poll_s)
            async with aclosing(lines):
                async for text in lines:
                    yield Line(text)
            tail = None
            continue
        if outcome_of(found) is not None:
            return
        text = _waiting(found, fresh)
        if text != waited_for:
            waited_for = text
            yield Line(text, is_note=True)
        await asyncio.sleep(poll_s)


async def _follow_pod(
    cluster: KubeCluster, pod: Manifest, tail: int | None, poll_s: float
) -> AsyncGenerator[str, None]:
    """The lines of a pod's log until its worker has ended; broken connections are mended without losing a line."""
    namespace, name, container = pod["metadata"]["namespace"], name_of(pod), worker_name(pod)
    position = _Position()
    query = (("follow", "true"), ("timestamps", "true"))
    first = (("tailLines", str(tail)),) if tail is not None else ()
    has_ended = False
    while True:
        position.repeated = 0
        since = (("sinceTime", position.time),) if position.time else first
        try:
            lines = cluster.follow_log(namespace, name, container, (*query, *since), SILENCE_S)
            async for line in lines:
                time, _, text = line.partition(" ")
                if position.is_new(time):
                    yield text
        except (ClusterUnavailable, Refused):
            await asyncio.sleep(poll_s)
        if has_ended:  # before the log was read, which is therefore whole
            return
        found = await cluster.get("Pod", namespace, name)
        if found is None or found["metadata"]["uid"] != pod["metadata"]["uid"]:
            return
        has_ended = is_over(found) or worker_end(found) is not None
        if not has_ended:
            await asyncio.sleep(min(REOPEN_S, poll_s))


def _header(pod: Manifest) -> Line:
    stage = labels_of(pod).get(STAGE_LABEL, "")
    return Line(f"==> {stage} (pod {name_of(pod)}) <==", is_note=True)


def _waiting(job: Manifest, pods: list[Manifest]) -> str:
    """The reason for which a job waits, in a line."""
    obstacle = next((found for pod in pods if (found := obstacle_of(pod))), None)
    status = job.get("status") or {}
    state, message = status.get("state", "Pending"), status.get("message", "")
    return f"==> waiting: {obstacle.message if obstacle else f'{state}: {message}'} <=="
