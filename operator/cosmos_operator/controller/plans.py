"""Remembers the plans of the jobs that had passes lately, since planning takes longer than all else in a pass."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from cosmos_operator.api.status import read_status
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.plan.job_plan import JobPlan, plan_job

MAX_PLANS = 400
"""Plans that are remembered; each takes about 70 kB."""


class Plans:
    """Plans of jobs."""

    def __init__(self) -> None:
        self._plans: OrderedDict[JobKey, tuple[tuple[bytes, bool, str], JobPlan]] = OrderedDict()

    def plan(self, key: JobKey, wanted: bytes, document: Manifest) -> JobPlan:
        """The plan of a PostTrainingJob.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.
        """
        found = self.recall(key, wanted, document)
        return found or self.remember(key, wanted, plan_job(document))

    def recall(
        self, key: JobKey, wanted: bytes, document: Manifest, basis: str = ""
    ) -> JobPlan | None:
        """The plan that is remembered, with the status of now; None if there is none that still holds.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.
            basis: what else the plan was made of.
        """
        known, previous = self._plans.get(key), read_status(document)
        if known is None or known[0] != (wanted, previous.was_accepted, basis):
            return None
        self._plans.move_to_end(key)
        return replace(known[1], document=document, previous=previous)

    def remember(self, key: JobKey, wanted: bytes, plan: JobPlan, basis: str = "") -> JobPlan:
        """Remember a plan, see :meth:`recall`; returns it."""
        # an accepted job is planned more tolerantly
        self._plans[key] = ((wanted, plan.previous.was_accepted, basis), plan)
        self._plans.move_to_end(key)
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return plan

    def forget(self, key: JobKey) -> None:
        """Forget the plan of a job."""
        self._plans.pop(key, None)
