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
        self._plans: OrderedDict[JobKey, tuple[tuple[bytes, bool], JobPlan]] = OrderedDict()

    def plan(self, key: JobKey, wanted: bytes, document: Manifest) -> JobPlan:
        """The plan of a job.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.
        """
        previous = read_status(document)
        identity = (wanted, previous.was_accepted)  # an accepted job is planned more tolerantly
        known = self._plans.get(key)
        if known is None or known[0] != identity:
            known = (identity, plan_job(document))
        self._plans[key] = known
        self._plans.move_to_end(key)
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return replace(known[1], document=document, previous=previous)

    def forget(self, key: JobKey) -> None:
        """Forget the plan of a job."""
        self._plans.pop(key, None)
