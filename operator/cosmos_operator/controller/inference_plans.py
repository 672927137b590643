"""Plans InferenceJobs, which need the PostTrainingJob that trained their model: the job itself, or the record of it."""

from __future__ import annotations

from cosmos_operator.api.base import KIND
from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.plans import Plans
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.kube.objects import owner_uids
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.inference_plan import (
    ModelSource,
    name_of_model_job,
    plan_inference_job,
    record_name,
)
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.settings import Settings

NEWS = ("Published", "Failed")
"""Conditions of a PostTrainingJob that change what an InferenceJob with its model does."""


def news_for_inference(job: Manifest) -> frozenset[str]:
    """Conditions of a PostTrainingJob, among ``NEWS``, that are true."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return frozenset(one["type"] for one in conditions if one["status"] == "True") & set(NEWS)


class InferencePlans:
    """Plans of InferenceJobs.

    Args:
        cluster: is asked for the whole PostTrainingJob, or its record, when a plan is made of it.
        cache: knows whether they are there.
        plans: remembers the plans.
        settings: settings of the installation.
    """

    def __init__(self, cluster: Cluster, cache: Cache, plans: Plans, settings: Settings) -> None:
        self._cluster, self._cache, self._plans = cluster, cache, plans
        self._settings = settings

    async def plan(self, key: JobKey, wanted: bytes, document: Manifest) -> JobPlan:
        """The plan of an InferenceJob, or what it waits for.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.

        Raises:
            ClusterUnavailable: try again later.
        """
        name = name_of_model_job(document)
        job = None if name is None else self._cache.get(KIND, key.namespace, name)
        has_record = self._has_record(key, document)
        is_published = job is not None and "Published" in news_for_inference(job)
        if name is not None and not has_record and not is_published:
            available = self._cache.names(KIND, key.namespace)
            return await self._plans.make(
                plan_inference_job, document, ModelSource(job, available=available)
            )
        basis = "record" if has_record or job is None else str(job["metadata"]["uid"])
        if found := self._plans.recall(key, wanted, document, basis):
            return found
        source = ModelSource() if name is None else await self._read(key, name, has_record)
        plan = await self._plans.make(plan_inference_job, document, source, self._settings)
        return self._plans.remember(key, wanted, plan, basis)

    def _has_record(self, key: JobKey, document: Manifest) -> bool:
        found = self._cache.get("ConfigMap", key.namespace, record_name(key.name))
        return found is not None and document["metadata"]["uid"] in owner_uids(found)

    async def _read(self, key: JobKey, name: str, has_record: bool) -> ModelSource:
        record = None
        if has_record:
            record = await self._cluster.get("ConfigMap", key.namespace, record_name(key.name))
        job = None if record else await self._cluster.get(KIND, key.namespace, name)
        return ModelSource(job, record, self._cache.names(KIND, key.namespace))
