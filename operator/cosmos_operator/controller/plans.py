"""Remembers the plans of the jobs that had passes lately, since planning takes longer than all else in a pass."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from cosmos_operator.api.status import read_status
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.plan.job_plan import JobPlan, plan_job

MAX_PLANS = 400
"""Plans that are remembered; each takes about 70 kB."""


_Known = tuple[tuple[bytes, bool, str], JobPlan]
"""Digest of a job, whether it had been accepted when it was planned, what else the plan was made of, and the plan."""


class Plans:
    """Plans of jobs."""

    def __init__(self) -> None:
        self._plans: OrderedDict[JobKey, _Known] = OrderedDict()

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
        identity = (wanted, previous.was_accepted, basis)
        if known is None or (known[0] != identity and not _holds_for(known, wanted, basis)):
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


def _holds_for(known: _Known, wanted: bytes, basis: str) -> bool:
    """True if a plan holds before and after the job is accepted: what is wrong in an accepted job is tolerated."""
    is_same = (known[0][0], known[0][2]) == (wanted, basis)
    return is_same and known[1].job is not None and not known[1].wrong_items
