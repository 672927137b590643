"""Remembers the plans of the jobs that had passes lately, since planning takes longer than all else in a pass."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from cosmos_operator.api.status import TrainingRun, read_status
from cosmos_operator.kube.kinds import JobKey, Manifest
from cosmos_operator.plan.edits import is_publishing
from cosmos_operator.plan.job_plan import JobPlan, plan_job
from cosmos_operator.settings import Settings

MAX_PLANS = 400
"""Plans that are remembered; each takes about 70 kB."""


@dataclass(frozen=True)
class _Basis:
    """What a plan follows from."""

    wanted: bytes
    """Digest of the job without its status."""
    was_accepted: bool
    run: TrainingRun | None
    """The training run that has begun, with which edits are compared."""
    is_publishing: bool


_Known = tuple[_Basis, JobPlan]


class Plans:
    """Plans of jobs.

    Args:
        settings: settings of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._plans: OrderedDict[JobKey, _Known] = OrderedDict()

    def plan(self, key: JobKey, wanted: bytes, document: Manifest) -> JobPlan:
        """The plan of a job.

        Args:
            key: the job.
            wanted: digest of all of its document but the status.
            document: its document.
        """
        previous = read_status(document)
        basis = _Basis(wanted, previous.was_accepted, previous.run, is_publishing(previous))
        known = self._plans.get(key)
        if known is None or (known[0] != basis and not _holds_for(known, basis)):
            known = (basis, plan_job(document, self._settings))
        self._plans[key] = known
        self._plans.move_to_end(key)
        if len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return replace(known[1], document=document, previous=previous)

    def forget(self, key: JobKey) -> None:
        """Forget the plan of a job."""
        self._plans.pop(key, None)


def _holds_for(known: _Known, basis: _Basis) -> bool:
    """True if a plan holds before and after the job is accepted: what is wrong in an accepted job is tolerated."""
    is_same = replace(known[0], was_accepted=basis.was_accepted) == basis
    return is_same and known[1].job is not None and not known[1].wrong_items
