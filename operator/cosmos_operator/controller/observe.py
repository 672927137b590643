"""Collects the state of the cluster around one job, from the cache. Knows kinds and labels, decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from cosmos_operator.api.base import KIND
from cosmos_operator.api.job import Job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.log_choice import choose_logs
from cosmos_operator.controller.planning_process import InlinePlanner, Planner, PlanningFailed
from cosmos_operator.controller.queue_check import QueueCheck
from cosmos_operator.controller.rare_reads import RareReads
from cosmos_operator.kube.kinds import WORKLOAD_KINDS, JobKey, Manifest, ObjectKey
from cosmos_operator.kube.objects import name_of, owner_uids, read_state, seconds_since
from cosmos_operator.kube.observed import Observed
from cosmos_operator.kube.pods import ending_of, is_over, obstacle_of, phase_of
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.inference_plan import name_of_model_job, record_name
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.plan.render import build_claims
from cosmos_operator.plan.stages import CONDITIONS
from cosmos_operator.plan.starting_job import FIELD, describe_incompatibility
from cosmos_operator.plan.volumes import claim_fields
from cosmos_operator.settings import Settings

LATE_AFTER_S = 3.0
"""Age from which on an object that does not start is asked for its warnings."""
CONTROL_PLANE_TAINT = "node-role.kubernetes.io/control-plane"
"""Taint of nodes that run no jobs."""
OUTCOMES_OF_NODES = ("GpuFault", "NodeLost")
"""Outcomes of attempts after which the next one looks at the nodes."""


class Observer:
    """Observes jobs.

    Args:
        cluster: the API server, for questions that it answers without storing anything.
        cache: the objects that the watches deliver.
        reads: what is read on demand.
        settings: settings of the installation, which say what the operator may read.
        planner: compares a job with the one whose checkpoint it begins with; omitted: in this process.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        reads: RareReads,
        settings: Settings,
        planner: Planner | None = None,
    ) -> None:
        self._cache, self._reads, self._settings = cache, reads, settings
        self._planner = planner or InlinePlanner()
        self._queue_check = QueueCheck(cluster, settings)

    async def observe(
        self,
        key: JobKey,
        plan: JobPlan,
        now: datetime,
        refusals: Mapping[ObjectKey, str],
        foreign: Mapping[ObjectKey, Manifest],
    ) -> Observed:
        """Collect what a pass over a job needs to know.

        Args:
            key: the job.
            plan: the job and its stages.
            now: the time.
            refusals: objects that the API server refused to create in the last pass, and why.
            foreign: objects of other people that have names which the job needs.

        Raises:
            ClusterUnavailable: the API server does not answer.
        """
        cache = self._cache
        objects = {(one["kind"], name_of(one)): one for one in cache.of_job(key)}
        pods = {name: one for (kind, name), one in objects.items() if kind == "Pod"}
        objects = {found: one for found, one in objects.items() if found[0] != "Pod"}
        if plan.job is None:
            return Observed(objects=objects, served=cache.served)
        objects.update(self._interesting(key, plan, plan.job))
        objects.update(foreign)
        made = self._made_by_workloads(key, objects)
        pods.update({name_of(one): one for one in made if one["kind"] == "Pod"})
        unbound = _unbound_claims(plan.job, objects)
        return Observed(
            objects=objects,
            pods=tuple(pods[name] for name in sorted(pods)),
            departed_pods=tuple(cache.departed(key)),
            claim_names=cache.names("PersistentVolumeClaim", key.namespace),
            storage_classes=await self._storage_classes(unbound),
            nodes=await self._nodes(plan, pods.values()),
            served=cache.served,
            num_nodes=await self._num_nodes(plan.job, objects),
            unmanaged_kinds=await self._queue_check.unmanaged_kinds(plan, cache.served),
            other_jobs=self._rivals(key, plan, plan.job),
            starting_problem=await self._starting_problem(key, plan, plan.job),
            queue_names=cache.names("LocalQueue", key.namespace),
            queue_workloads=tuple(one for one in made if one["kind"] == "Workload"),
            logs=await self._reads.logs(
                key,
                choose_logs(pods.values(), objects, _told_stages(plan)),
                now,
                plan.job.spec.run_policy.stall_timeout_seconds,
            ),
            warnings=await self._reads.warnings(
                key, _late(_not_started(objects, pods.values(), unbound, now), now)
            ),
            refusals=refusals,
        )

    def _made_by_workloads(self, key: JobKey, objects: Iterable[ObjectKey]) -> list[Manifest]:
        """Pods of the job's workloads, and what Kueue has made for these."""
        return [
            one
            for kind, name in objects
            if kind in WORKLOAD_KINDS
            for one in self._cache.made_by(key.namespace, kind, name)
        ]

    def _interesting(self, key: JobKey, plan: JobPlan, job: Job) -> dict[ObjectKey, Manifest]:
        """Objects that the job uses without owning them, such as claims; not other jobs and queues."""
        return {
            (kind, name): one
            for kind, name in interests(plan, job)
            if kind not in (KIND, "LocalQueue")
            and (one := self._cache.get(kind, key.namespace, name)) is not None
        }

    def _rivals(self, key: JobKey, plan: JobPlan, job: Job) -> tuple[Manifest, ...]:
        """Jobs that publish under the name of a job that is new, or has failed and is told to try again."""
        previous = plan.previous
        has_failed = any((c.type, c.status) == ("Failed", "True") for c in previous.conditions)
        if (previous.was_accepted and not has_failed) or not isinstance(job, PostTrainingJob):
            return ()
        return self._cache.publishing(key.namespace, job.published_name)

    async def _num_nodes(self, job: Job, objects: Mapping[ObjectKey, Manifest]) -> int | None:
        """Number of nodes that may run jobs, if a claim that one node can write is used by pods of several nodes."""
        claims = (objects.get(("PersistentVolumeClaim", name)) for name in claim_fields(job))
        modes = [one["spec"].get("accessModes", ()) for one in claims if one is not None]
        is_wanted = job.spec.compute.nodes > 1 and any("ReadWriteOnce" in one for one in modes)
        if not is_wanted or not self._settings.can_list_nodes:
            return None
        return sum(
            all(taint["key"] != CONTROL_PLANE_TAINT for taint in node["spec"].get("taints") or ())
            for node in await self._reads.nodes()
        )

    async def _starting_problem(self, key: JobKey, plan: JobPlan, job: Job) -> str:
        """The reason for which the training cannot begin with the checkpoint of the job that it names."""
        start = job.spec.checkpoints.start_from if isinstance(job, PostTrainingJob) else None
        if plan.previous.attempts or start is None or start.job is None:
            return ""
        other = await self._reads.other_job(key, start.job)
        if other is None:
            return ""
        try:
            return await self._planner.run(describe_incompatibility, job, plan.stages, other)
        except PlanningFailed as error:
            return f"{FIELD}: the operator cannot plan {start.job!r}: {error}"

    async def _storage_classes(self, unbound: list[Manifest]) -> dict[str, Manifest] | None:
        if not self._settings.can_list_nodes:
            return None
        names = {claim["spec"].get("storageClassName") for claim in unbound}
        return await self._reads.storage_classes(name for name in names if name)

    async def _nodes(self, plan: JobPlan, pods: Iterable[Manifest]) -> tuple[Manifest, ...] | None:
        """The nodes, if they explain why pods do not start, or how an attempt ended, or where the next one may run."""
        if not self._settings.can_list_nodes or not any(stage.gpus for stage in plan.stages):
            return None
        is_wanted = any(one.outcome in OUTCOMES_OF_NODES for one in plan.previous.attempts)
        if is_wanted or any(map(_raises_questions, pods)):
            return await self._reads.nodes()
        return None


def interests(plan: JobPlan, job: Job) -> frozenset[ObjectKey]:
    """Objects that a job looks at beside its own: claims, its queue, what other jobs may have made for its stages."""
    names = {*claim_fields(job), *map(name_of, build_claims(job))}
    found = {("PersistentVolumeClaim", name) for name in names}
    if model_job := name_of_model_job(plan.document):
        found |= {(KIND, model_job), ("ConfigMap", record_name(job.name))}
    if job.queue_name:
        found.add(("LocalQueue", job.queue_name))
    if job.spec.run_policy.suspend:
        return frozenset(found)
    ready = {c.type for c in plan.previous.conditions if c.status == "True"}
    for stage in plan.stages:
        if stage.is_shared and CONDITIONS[stage.kind] not in ready:
            name = plan.object_names[stage.name]
            found |= {("Job", name), ("ConfigMap", name)}
    return frozenset(found)


def _raises_questions(pod: Manifest) -> bool:
    """True for a pod that finds no node, or has ended with another exit code than 0."""
    obstacle, ending = obstacle_of(pod), ending_of(pod)
    if obstacle is not None and obstacle.reason == "Unschedulable":
        return True
    return ending is not None and ending.exit_code != 0


def _told_stages(plan: JobPlan) -> set[str]:
    """Stages whose result the status tells already."""
    return {one.name for one in plan.previous.stages if one.state in ("Succeeded", "Failed")}


def _unbound_claims(job: Job, objects: Mapping[ObjectKey, Manifest]) -> list[Manifest]:
    """Claims of the job that have no volume."""
    keys = [("PersistentVolumeClaim", name) for name in claim_fields(job)]
    claims = [objects[key] for key in keys if key in objects]
    return [one for one in claims if one.get("status", {}).get("phase") != "Bound"]


def _not_started(
    objects: Mapping[ObjectKey, Manifest],
    pods: Iterable[Manifest],
    unbound: list[Manifest],
    now: datetime,
) -> list[tuple[str, Manifest]]:
    """Pods that do not start and do not say why, active workloads without pods, claims without volumes."""
    pods = list(pods)
    current = (pod for pod in pods if not is_over(pod) or _ended_lately(pod, now))
    owners = {uid for pod in current for uid in owner_uids(pod)}
    waiting: list[tuple[str, Manifest]] = [
        ("Pod", pod) for pod in pods if phase_of(pod) == "Pending" and obstacle_of(pod) is None
    ]
    waiting += [
        (kind, one)
        for (kind, _), one in objects.items()
        if kind in WORKLOAD_KINDS
        and read_state(one).state == "Active"
        and one["metadata"]["uid"] not in owners
    ]
    waiting += [("PersistentVolumeClaim", claim) for claim in unbound]
    return waiting


def _ended_lately(pod: Manifest, now: datetime) -> bool:
    """True for a pod whose end its workload's controller need not have noticed yet."""
    ending = ending_of(pod)
    return ending is not None and seconds_since(ending.finish_time, now) < LATE_AFTER_S


def _late(waiting: list[tuple[str, Manifest]], now: datetime) -> list[tuple[str, Manifest]]:
    return [
        (kind, one)
        for kind, one in waiting
        if seconds_since(one["metadata"].get("creationTimestamp"), now) >= LATE_AFTER_S
    ]
