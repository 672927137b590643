"""Reads the state of the cluster around one job from the API server. Knows kinds and labels, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cosmos_operator.api.base import KIND
from cosmos_operator.api.labels import (
    ATTEMPT_LABEL,
    JOB_LABEL,
    JOB_NAME_LABEL,
    MANAGED_BY,
    MANAGED_LABEL,
    STAGE_LABEL,
)
from cosmos_operator.api.status import Attempt
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.controller.queue_check import find_unmanaged_kinds
from cosmos_operator.kube.containers import has_started, worker_end, worker_name
from cosmos_operator.kube.kinds import WORKLOAD_KINDS, Manifest, ObjectKey
from cosmos_operator.kube.objects import labels_of, name_of, owner_uids, read_state, seconds_since
from cosmos_operator.kube.observed import Observed
from cosmos_operator.kube.pods import is_over, obstacle_of, phase_of
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.backend import BACKENDS
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.plan.render import stage_name
from cosmos_operator.plan.volumes import claim_fields
from cosmos_operator.settings import Settings

LOG_LINES = 400
"""Lines of a log that are read: enough to hold a line of progress, whatever else the processes of a pod write."""
LAST_LINES = 20
"""Lines that are read of the log of a stage that has ended, for the status."""
LATE_AFTER_S = 3.0
"""Age from which on an object that does not start is asked for its warnings."""
CONTROL_PLANE_TAINT = "node-role.kubernetes.io/control-plane"
"""Taint of nodes that run no jobs."""


async def observe(
    cluster: Cluster,
    plan: JobPlan,
    settings: Settings,
    now: datetime,
    refusals: Mapping[ObjectKey, str],
) -> Observed:
    """Read what a pass over a job needs to know.

    Args:
        cluster: the API server.
        plan: the job and its stages.
        settings: settings of the installation, which say what the operator may read.
        now: the time.
        refusals: objects that the API server refused to create in the last pass, and why.

    Raises:
        ClusterUnavailable: the API server does not answer.
    """
    if plan.job is None:
        return Observed(objects=await _read_workloads(cluster, plan.document))
    reader = _Reader(cluster, plan, plan.job)
    await reader.read_objects()
    await reader.read_pods()
    wants_nodes = settings.can_list_nodes and plan.job.spec.compute.gpus_per_node > 0
    queue_names, queue_workloads = await reader.read_queue()
    return Observed(
        objects=reader.objects,
        pods=tuple(reader.pods.values()),
        claim_names=tuple(n for kind, n in reader.objects if kind == "PersistentVolumeClaim"),
        storage_classes=await reader.read_storage_classes() if settings.can_list_nodes else None,
        nodes=tuple(await cluster.list("Node", None)) if wants_nodes else None,
        num_nodes=await reader.count_nodes() if settings.can_list_nodes else None,
        served=reader.served,
        unmanaged_kinds=await find_unmanaged_kinds(cluster, plan, settings, reader.served),
        other_jobs=await reader.read_other_jobs() if not plan.previous.was_accepted else (),
        queue_names=queue_names,
        queue_workloads=queue_workloads,
        logs=await reader.read_logs(),
        warnings=await reader.read_warnings(now),
        starting_job=await reader.read_starting_job(plan.previous.attempts),
        refusals=refusals,
    )


async def _read_workloads(cluster: Cluster, document: Manifest) -> dict[ObjectKey, Manifest]:
    """The workloads of a job that can no longer be carried out, which are to be stopped once it has ended."""
    namespace, uid = document["metadata"]["namespace"], document["metadata"]["uid"]
    served = await cluster.served()
    objects: dict[ObjectKey, Manifest] = {}
    for kind in WORKLOAD_KINDS:
        if kind == "Job" or kind in served:
            found = await cluster.list(kind, namespace, {MANAGED_LABEL: MANAGED_BY})
            _add_objects(objects, kind, [one for one in found if uid in owner_uids(one)])
    return objects


def _add_objects(objects: dict[ObjectKey, Manifest], kind: str, found: Sequence[Manifest]) -> None:
    for one in found:
        one.setdefault("kind", kind)  # items of a list do not state it
        objects[kind, name_of(one)] = one


class _Reader:
    """Reads piece after piece; later pieces depend on earlier ones."""

    def __init__(self, cluster: Cluster, plan: JobPlan, job: PostTrainingJob) -> None:
        self.cluster, self.job = cluster, job
        self.namespace: str = plan.document["metadata"]["namespace"]
        # finished ones too: a job gives them up at its end, or when other containers keep their pods
        self.shared_names = [stage_name(job, one) for one in plan.stages if one.is_shared]
        self.told_stages = {
            one.name for one in plan.previous.stages if one.state in ("Succeeded", "Failed")
        }
        self.objects: dict[ObjectKey, Manifest] = {}
        self.pods: dict[str, Manifest] = {}
        self.served: frozenset[str] = frozenset()

    async def read_objects(self) -> None:
        """Read objects with the job's label, those of shared stages by their names, and all claims."""
        self.served = await self.cluster.served()
        kinds = [kind for kind in WORKLOAD_KINDS if kind == "Job" or kind in self.served]
        labels = {JOB_LABEL: self.job.name}
        for kind in (*kinds, "ConfigMap", "Service"):
            found = await self.cluster.list(kind, self.namespace, labels)
            _add_objects(self.objects, kind, found)
        for name in self.shared_names:
            for kind in ("Job", "ConfigMap"):
                one = await self.cluster.get(kind, self.namespace, name)
                _add_objects(self.objects, kind, [one] if one is not None else [])
        claims = await self.cluster.list("PersistentVolumeClaim", self.namespace)
        _add_objects(self.objects, "PersistentVolumeClaim", claims)

    async def read_pods(self) -> None:
        """Read the pods of the job, and those of shared stages."""
        selectors = [{JOB_LABEL: self.job.name}]
        selectors += [
            {JOB_NAME_LABEL: name} for name in self.shared_names if ("Job", name) in self.objects
        ]
        for labels in selectors:
            for pod in await self.cluster.list("Pod", self.namespace, labels):
                self.pods[name_of(pod)] = pod

    async def read_storage_classes(self) -> dict[str, Manifest]:
        """Storage classes of claims that are not bound yet."""
        names = {claim["spec"].get("storageClassName") for claim in self._unbound_claims()}
        found = {}
        for name in sorted(name for name in names if name):
            storage_class = await self.cluster.get("StorageClass", None, name)
            if storage_class is not None:
                found[name] = storage_class
        return found

    async def read_other_jobs(self) -> tuple[Manifest, ...]:
        """All PostTrainingJobs of the namespace."""
        return tuple(await self.cluster.list(KIND, self.namespace))

    async def count_nodes(self) -> int | None:
        """Number of nodes that may run jobs, if a claim that one node can write is used by pods of several nodes."""
        modes = [self.objects[key]["spec"].get("accessModes", ()) for key in self._claim_keys()]
        if self.job.spec.compute.nodes == 1 or not any("ReadWriteOnce" in one for one in modes):
            return None
        nodes = await self.cluster.list("Node", None)
        return sum(
            not any(
                taint["key"] == CONTROL_PLANE_TAINT for taint in node["spec"].get("taints") or ()
            )
            for node in nodes
        )

    async def read_queue(self) -> tuple[tuple[str, ...], tuple[Manifest, ...]]:
        """Names of the LocalQueues, and Kueue's Workloads, if the job names a queue."""
        if not self.job.queue_name or "LocalQueue" not in self.served:
            return (), ()
        queues = await self.cluster.list("LocalQueue", self.namespace)
        workloads = await self.cluster.list("Workload", self.namespace)
        return tuple(name_of(queue) for queue in queues), tuple(workloads)

    async def read_starting_job(self, attempts: Sequence[Attempt]) -> Manifest | None:
        """The job whose checkpoint the training is to begin with; None once it has begun."""
        start = self.job.spec.checkpoints.start_from
        if attempts or start is None or start.job is None:
            return None
        return await self.cluster.get(KIND, self.namespace, start.job)

    async def read_logs(self) -> dict[str, str]:
        """Last lines of the workers that run, of the latest training leader, and of stages that have just ended."""
        latest = max(map(_attempt_of, self.pods.values()), default=0)
        found = {}
        for name, pod in self.pods.items():
            attempt, has_ended = _attempt_of(pod), worker_end(pod) is not None
            if not has_started(pod) or not _reports_progress(pod):
                continue
            if attempt and is_over(pod) and attempt != latest:
                continue
            if not attempt and has_ended and not self._is_to_be_told(pod):
                continue
            lines = LAST_LINES if has_ended and not attempt else LOG_LINES
            text = await self.cluster.read_log(self.namespace, name, worker_name(pod), lines)
            if text is not None:
                found[name] = text
        return found

    def _is_to_be_told(self, pod: Manifest) -> bool:
        """True for the pod that ended a stage whose last lines the status does not have yet."""
        labels = labels_of(pod)
        if labels.get(STAGE_LABEL) in self.told_stages:
            return False
        job = self.objects.get(("Job", labels.get(JOB_NAME_LABEL, "")))
        is_done = job is None or read_state(job).state in ("Succeeded", "Failed")
        return is_done or not is_over(pod)  # not over: other containers keep it

    async def read_warnings(self, now: datetime) -> dict[ObjectKey, str]:
        """Latest warning event of each object that has not started some seconds after its creation."""
        found: dict[ObjectKey, str] = {}
        for kind, one in self._not_started():
            age_s = seconds_since(one["metadata"].get("creationTimestamp"), now)
            if age_s >= LATE_AFTER_S and (text := await self._read_warning(kind, name_of(one))):
                found[kind, name_of(one)] = text
        return found

    def _not_started(self) -> list[tuple[str, Manifest]]:
        """Pods that do not start and do not say why, active workloads without pods, claims without volumes."""
        pods = self.pods.values()
        owners = {uid for pod in pods if not is_over(pod) for uid in owner_uids(pod)}
        waiting: list[tuple[str, Manifest]] = [
            ("Pod", pod) for pod in pods if phase_of(pod) == "Pending" and obstacle_of(pod) is None
        ]
        waiting += [
            (kind, one)
            for (kind, _), one in self.objects.items()
            if kind in WORKLOAD_KINDS
            and read_state(one).state == "Active"
            and one["metadata"]["uid"] not in owners
        ]
        waiting += [("PersistentVolumeClaim", claim) for claim in self._unbound_claims()]
        return waiting

    def _unbound_claims(self) -> list[Manifest]:
        """Claims of the job that have no volume."""
        claims = [self.objects[key] for key in self._claim_keys()]
        return [one for one in claims if one.get("status", {}).get("phase") != "Bound"]

    def _claim_keys(self) -> list[ObjectKey]:
        """Claims of the job that are there."""
        keys = [("PersistentVolumeClaim", name) for name in claim_fields(self.job)]
        return [key for key in keys if key in self.objects]

    async def _read_warning(self, kind: str, name: str) -> str:
        """Message of the latest warning event of an object; empty if there is none."""
        fields = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        events = await self.cluster.list("Event", self.namespace, fields=fields)
        if not events:
            return ""
        newest = max(events, key=_time_of)
        return " ".join(str(newest.get("message", "")).split())


def _attempt_of(pod: Manifest) -> int:
    """Number of the attempt that a training pod belongs to; 0 for other pods."""
    return int(labels_of(pod).get(ATTEMPT_LABEL, 0))


def _reports_progress(pod: Manifest) -> bool:
    """True for pods whose log is read: the leader of a training, and every pod of another stage."""
    own = labels_of(pod).items()
    leads = any(backend.leader_labels.items() <= own for backend in BACKENDS.values())
    return leads or not _attempt_of(pod)


def _time_of(event: Manifest) -> str:
    return str(
        event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp", "")
    )
