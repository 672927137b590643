"""Kinds of workload that Kueue does not manage in this cluster, found without storing anything.

Kueue's configuration says which kinds it manages, and only its own namespace can be asked for it. But its webhook
suspends a new workload of a managed kind that names a queue, also in a dry run.
"""

from __future__ import annotations

import copy
import time

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import OperatorError
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import wants_suspension
from cosmos_operator.kube.protocol import Cluster
from cosmos_operator.plan.backend import BACKENDS
from cosmos_operator.plan.job_plan import JobPlan
from cosmos_operator.plan.workload import TrainingAttempt
from cosmos_operator.settings import Settings

OPTIONAL_BACKENDS = ("PyTorchJob",)
"""Kinds that ``Auto`` prefers to a Job, and that Kueue may have off."""


REMEMBERED_S = 60.0
"""Seconds for which the answer for a queue is remembered, so that many jobs at once cost one question."""


class QueueCheck:
    """Knows which kinds the queues of jobs manage.

    Args:
        cluster: the API server.
        settings: settings of the installation.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster, self._settings = cluster, settings
        self._known: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}

    async def unmanaged_kinds(self, plan: JobPlan, served: frozenset[str]) -> frozenset[str]:
        """The kinds that ``Auto`` must not take for a job, because its queue would never start them.

        Args:
            plan: the job and its stages.
            served: the optional kinds that the API server has.

        Returns:
            Kinds; none if the job names no queue or a backend, or has begun, or the API server does not say.
        """
        job = plan.job
        if (
            job is None
            or job.spec.backend.type != "Auto"
            or not job.queue_name
            or not isinstance(job, PostTrainingJob)
            or "LocalQueue" not in served
            or plan.previous.attempts
        ):
            return frozenset()
        place = (plan.document["metadata"]["namespace"], job.queue_name)
        until, found = self._known.get(place, (0.0, frozenset()))
        if time.monotonic() >= until:
            found = await self._ask(plan, job, served)
            self._known[place] = (time.monotonic() + REMEMBERED_S, found)
        return found

    async def _ask(
        self, plan: JobPlan, job: PostTrainingJob, served: frozenset[str]
    ) -> frozenset[str]:
        found = set()
        for kind in OPTIONAL_BACKENDS:
            workload = _unsuspended(plan, job, self._settings, kind)
            if kind in served and not await _is_managed(self._cluster, workload):
                found.add(kind)
        return frozenset(found)


def _unsuspended(plan: JobPlan, job: PostTrainingJob, settings: Settings, kind: str) -> Manifest:
    """The workload of the job's first attempt, as if it were to start at once."""
    (stage,) = (stage for stage in plan.stages if stage.kind == "train")
    attempt = TrainingAttempt(job, stage, plan.object_names[stage.name], settings, 1)
    workload = copy.deepcopy(BACKENDS[kind].build(attempt)[-1])
    workload["metadata"]["namespace"] = plan.document["metadata"]["namespace"]
    holder = workload["spec"]["runPolicy"] if kind == "PyTorchJob" else workload["spec"]
    holder["suspend"] = False
    return workload


async def _is_managed(cluster: Cluster, workload: Manifest) -> bool:
    """True if somebody suspends the workload when it is created, or the API server refuses to say."""
    try:
        return wants_suspension(await cluster.dry_run(workload))
    except OperatorError:
        return True
