"""Read everything around one job from the API server. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.decide.decide import read_status, was_accepted
from cosmos_operator.decide.observed import ObjectKey, Observed
from cosmos_operator.decide.pods import is_over, name_of, obstacle_of, phase_of
from cosmos_operator.decide.requirements.preflight import claim_fields
from cosmos_operator.decide.stages.advance import QUESTIONS
from cosmos_operator.decide.stages.stage_jobs import POD_LABEL
from cosmos_operator.decide.times import seconds_since
from cosmos_operator.decide.training.workloads import (
    WORKLOAD_KINDS,
    read_state,
)
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.backend import BACKENDS
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.plan.names import ATTEMPT_LABEL, JOB_LABEL
from cosmos_operator.plan.render import stage_name
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings

Manifest = dict[str, Any]

LOG_LINES = 400
"""Enough to hold a line of progress, however much else the processes of a pod say between two of them."""
LATE_AFTER_S = 3.0
"""Age from which on an object that makes no headway is asked for its warnings."""


async def observe(
    cluster: Cluster,
    document: Manifest,
    settings: Settings,
    now: datetime,
    refusals: Mapping[ObjectKey, str],
) -> Observed:
    """What a pass over a job needs to see.

    Raises:
        ClusterUnavailable: the API server does not answer.
    """
    status = read_status(document)
    try:
        found = plan_job(document, was_accepted=was_accepted(status))
    except InvalidSpec:
        return Observed(objects=await _read_workloads(cluster, document))
    job = found.job
    reader = _Reader(cluster, document, job, found.stages)
    await reader.read_objects()
    await reader.read_pods()
    wants_nodes = settings.can_list_nodes and job.spec.compute.gpus_per_node > 0
    queue_names, queue_workloads = await reader.read_queue()
    return Observed(
        objects=reader.objects,
        pods=tuple(reader.pods.values()),
        claim_names=tuple(n for kind, n in reader.objects if kind == "PersistentVolumeClaim"),
        storage_classes=await reader.read_storage_classes() if settings.can_list_nodes else None,
        nodes=tuple(await cluster.list("Node", None)) if wants_nodes else None,
        served=reader.served,
        queue_names=queue_names,
        queue_workloads=queue_workloads,
        logs=await reader.read_logs(),
        warnings=await reader.read_warnings(now),
        refusals=refusals,
    )


async def _read_workloads(cluster: Cluster, document: Manifest) -> dict[ObjectKey, Manifest]:
    """What runs of a job that can no longer be carried out, and is to be stopped."""
    namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
    served = await cluster.served()
    objects: dict[ObjectKey, Manifest] = {}
    for kind in WORKLOAD_KINDS:
        if kind == "Job" or kind in served:
            for one in await cluster.list(kind, namespace, {JOB_LABEL: name}):
                one.setdefault("kind", kind)  # items of a list do not say it
                objects[kind, name_of(one)] = one
    return objects


class _Reader:
    """Reads piece after piece; later pieces depend on earlier ones."""

    def __init__(
        self, cluster: Cluster, document: Manifest, job: PostTrainingJob, stages: Sequence[Stage]
    ) -> None:
        self.cluster, self.job = cluster, job
        self.namespace: str = document["metadata"]["namespace"]
        ready = {c.type for c in read_status(document).conditions if c.status == "True"}
        self.shared = [
            stage_name(job, stage)
            for stage in stages
            if stage.is_shared and QUESTIONS[stage.kind] not in ready
        ]
        self.objects: dict[ObjectKey, Manifest] = {}
        self.pods: dict[str, Manifest] = {}
        self.served: frozenset[str] = frozenset()

    def _keep(self, kind: str, found: Sequence[Manifest]) -> None:
        for one in found:
            one.setdefault("kind", kind)  # items of a list do not say it
            self.objects[kind, name_of(one)] = one

    async def read_objects(self) -> None:
        """Objects with the job's label, shared stages by their names, all claims."""
        self.served = await self.cluster.served()
        kinds = [kind for kind in WORKLOAD_KINDS if kind == "Job" or kind in self.served]
        for kind in (*kinds, "ConfigMap", "Service"):
            labels = {JOB_LABEL: self.job.name}
            self._keep(kind, await self.cluster.list(kind, self.namespace, labels))
        for name in self.shared:
            for kind in ("Job", "ConfigMap"):
                found = await self.cluster.get(kind, self.namespace, name)
                if found is not None:
                    self._keep(kind, [found])
        claims = await self.cluster.list("PersistentVolumeClaim", self.namespace)
        self._keep("PersistentVolumeClaim", claims)

    async def read_pods(self) -> None:
        """Pods of the job, and those of shared stages."""
        selectors = [{JOB_LABEL: self.job.name}]
        selectors += [{POD_LABEL: name} for name in self.shared if ("Job", name) in self.objects]
        for labels in selectors:
            for pod in await self.cluster.list("Pod", self.namespace, labels):
                self.pods[name_of(pod)] = pod

    async def read_storage_classes(self) -> dict[str, Manifest]:
        """Classes of claims that are not bound yet."""
        names = {
            claim["spec"].get("storageClassName")
            for claim in self._claims()
            if claim.get("status", {}).get("phase") != "Bound"
        }
        found = {}
        for name in sorted(name for name in names if name):
            storage_class = await self.cluster.get("StorageClass", None, name)
            if storage_class is not None:
                found[name] = storage_class
        return found

    def _claims(self) -> list[Manifest]:
        keys = [("PersistentVolumeClaim", name) for name in claim_fields(self.job)]
        return [self.objects[key] for key in keys if key in self.objects]

    async def read_queue(self) -> tuple[tuple[str, ...], tuple[Manifest, ...]]:
        """Queues and workloads of Kueue, if the job names a queue."""
        if not self.job.spec.scheduling.queue_name or "LocalQueue" not in self.served:
            return (), ()
        queues = await self.cluster.list("LocalQueue", self.namespace)
        workloads = await self.cluster.list("Workload", self.namespace)
        return tuple(name_of(queue) for queue in queues), tuple(workloads)

    async def read_logs(self) -> dict[str, str]:
        """Last lines of the pods that run, and of the training's latest leader even when it has ended."""
        attempts = [_attempt_of(pod) for pod in self.pods.values()]
        latest = max(attempts, default=0)
        found = {}
        for name, pod in self.pods.items():
            ended = is_over(pod) and (latest == 0 or _attempt_of(pod) != latest)
            if phase_of(pod) == "Pending" or ended or not _is_heard(pod):
                continue
            container = pod["spec"]["containers"][0]["name"]
            text = await self.cluster.read_log(self.namespace, name, container, LOG_LINES)
            if text is not None:
                found[name] = text
        return found

    async def read_warnings(self, now: datetime) -> dict[ObjectKey, str]:
        """Latest warning of pods that do not start, workloads without pods, claims without volumes."""
        found: dict[ObjectKey, str] = {}
        for kind, one in self._late(now):
            key = (kind, name_of(one))
            text = await self._warning(*key)
            if text:
                found[key] = text
        return found

    def _late(self, now: datetime) -> list[tuple[str, Manifest]]:
        owners = {
            owner["uid"]
            for pod in self.pods.values()
            for owner in pod["metadata"].get("ownerReferences", ())
            if not is_over(pod)
        }
        waiting: list[tuple[str, Manifest]] = [
            ("Pod", pod)
            for pod in self.pods.values()
            if phase_of(pod) == "Pending" and obstacle_of(pod) is None
        ]
        waiting += [
            (kind, one)
            for (kind, _), one in self.objects.items()
            if kind in WORKLOAD_KINDS
            and read_state(one).state == "Active"
            and one["metadata"]["uid"] not in owners
        ]
        waiting += [
            ("PersistentVolumeClaim", claim)
            for claim in self._claims()
            if claim.get("status", {}).get("phase") != "Bound"
        ]
        return [
            (kind, one)
            for kind, one in waiting
            if seconds_since(one["metadata"].get("creationTimestamp"), now) >= LATE_AFTER_S
        ]

    async def _warning(self, kind: str, name: str) -> str:
        fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events = await self.cluster.list("Event", self.namespace, fields=fields)
        if not events:
            return ""
        newest = max(events, key=lambda event: _time_of(event))
        return " ".join(str(newest.get("message", "")).split())


def _attempt_of(pod: Manifest) -> int:
    """Number of the attempt that a training pod belongs to; 0 for other pods."""
    return int(pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL, 0))


def _is_heard(pod: Manifest) -> bool:
    """Whether anybody reads what a pod says: of a training, only the leader speaks."""
    own = pod["metadata"].get("labels", {}).items()
    leads = any(backend.leader_labels.items() <= own for backend in BACKENDS.values())
    return leads or not _attempt_of(pod)


def _time_of(event: Manifest) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
