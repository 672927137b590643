"""Remembers the plans of the jobs that had passes lately, since planning takes longer than all else in a pass."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from cosmos_operator.api.status import PostTrainingJobStatus, TrainingRun, read_status
from cosmos_operator.controller.planning_process import InlinePlanner, Planner, PlanningFailed
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.plan.edits import is_publishing
from cosmos_operator.plan.job_plan import JobPlan, plan_job
from cosmos_operator.settings import Settings

logger = logging.getLogger(__name__)

MAX_PLANS = 400
"""Plans that are remembered; each takes about 70 kB."""


@dataclass(frozen=True)
class _Basis:
    """The inputs that a plan follows from."""

    wanted: bytes
    """Digest of the job without its status."""
    was_accepted: bool
    run: TrainingRun | None
    """The training run that has begun, with which edits are compared."""
    is_publishing: bool
    others: str
    """Other objects that the plan was made of, such as the job that trained a model."""


_Known = tuple[_Basis, JobPlan]


class Plans:
    """Plans of jobs.

    Args:
        settings: settings of the installation.
        planner: makes them; omitted: in this process.
    """

    def __init__(self, settings: Settings, planner: Planner | None = None) -> None:
        self._settings, self._planner = settings, planner or InlinePlanner()
        self._plans: OrderedDict[JobKey, _Known] = OrderedDict()

    async def plan(self, key: JobKey, wanted: bytes, document: Manifest) -> JobPlan:
        """The plan of a PostTrainingJob.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.

        Raises:
            ClusterUnavailable: try again later.
        """
        if found := self.recall(key, wanted, document):
            return found
        plan = await self.make(plan_job, document, self._settings)
        return self.remember(key, wanted, plan)

    async def make(
        self, function: Callable[..., JobPlan], document: Manifest, *arguments: object
    ) -> JobPlan:
        """The plan that a function makes of a job; one that cannot be made is a problem of this job alone.

        Args:
            function: of ``plan``, which takes the document and the arguments.
            document: the job.
            arguments: what else the function takes.

        Raises:
            ClusterUnavailable: try again later.
        """
        try:
            return await self._planner.run(function, document, *arguments)
        except PlanningFailed as error:
            name = document["metadata"].get("name")
            logger.error("%s: cannot be planned: %s", name, error)
            problem = f"job: cannot be planned: {error}; make the job simpler"
            return JobPlan(document, read_status(document), problems=(problem,))

    def recall(
        self, key: JobKey, wanted: bytes, document: Manifest, others: str = ""
    ) -> JobPlan | None:
        """The plan that is remembered, with the status of now; None if there is none that still holds.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.
            others: what else the plan was made of.
        """
        known, previous = self._plans.get(key), read_status(document)
        basis = _basis(wanted, previous, others)
        if known is None or (known[0] != basis and not _holds_for(known, basis)):
            return None
        self._plans.move_to_end(key)
        return replace(known[1], document=document, previous=previous)

    def remember(self, key: JobKey, wanted: bytes, plan: JobPlan, others: str = "") -> JobPlan:
        """Remember a plan, see :meth:`recall`; returns it."""
        self._plans[key] = (_basis(wanted, plan.previous, others), plan)
        self._plans.move_to_end(key)
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return plan

    def forget(self, key: JobKey) -> None:
        """Forget the plan of a job."""
        self._plans.pop(key, None)


def _basis(wanted: bytes, previous: PostTrainingJobStatus, others: str) -> _Basis:
    # an accepted job is planned more tolerantly
    return _Basis(wanted, previous.was_accepted, previous.run, is_publishing(previous), others)


def _holds_for(known: _Known, basis: _Basis) -> bool:
    """True if a plan holds before and after the job is accepted: what is wrong in an accepted job is tolerated."""
    is_same = replace(known[0], was_accepted=basis.was_accepted) == basis
    return is_same and known[1].job is not None and not known[1].wrong_items
