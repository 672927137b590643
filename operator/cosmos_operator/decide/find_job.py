"""The Job of a stage: by the name that it has now, or by one that earlier settings of the job gave it. Pure.

The name of a shared stage's Job stands for its pod, so that a job with another image or another pod template has
another Job. A Job that this job began before an edit, or before an upgrade, counts as long as it owns it.
"""

from __future__ import annotations

from cosmos_operator.api.labels import (
    COMMON_LABELS,
    KEY_LABEL,
    STAGE_LABEL,
    TEMPLATE_ANNOTATION,
)
from cosmos_operator.api.pod_template_rules import WORKER
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, labels_of, name_of
from cosmos_operator.plan.pod import PROGRAM
from cosmos_operator.plan.stages import Stage


def find_job(pass_: Pass, stage: Stage) -> Manifest | None:
    """The Job of a stage other than the training; None if it has not begun."""
    found = pass_.observed.get("Job", pass_.object_names[stage.name])
    if found is not None or not stage.is_shared:
        return found
    earlier = _earlier_jobs(pass_, stage, "")
    return next((one for one in earlier if not is_being_deleted(one)), next(iter(earlier), None))


def is_of_operator(stage: Stage, workload: Manifest) -> bool:
    """True if a Job is one that an operator makes for this stage, so that other jobs may use it.

    Its labels, the mark of its pod template and the command of its worker are looked at. Whoever may create Jobs in the
    namespace can imitate all of them, and could write the files of the claims as well: this keeps out what was made by
    hand or by another program, not an attacker with these rights.
    """
    wanted = {**COMMON_LABELS, STAGE_LABEL: stage.name, KEY_LABEL: stage.key}
    containers = workload["spec"]["template"]["spec"].get("containers") or ()
    command = next((one.get("command") for one in containers if one["name"] == WORKER), None)
    return (
        wanted.items() <= labels_of(workload).items()
        and TEMPLATE_ANNOTATION in workload["metadata"].get("annotations", {})
        and list(command or ())[:2] == [PROGRAM, stage.kind]
    )


def give_up_earlier_jobs(pass_: Pass, stage: Stage, used: Manifest) -> None:
    """Give up the Jobs of a shared stage that earlier settings of this job made, but for the one that is used."""
    if not stage.is_shared:
        return
    for one in _earlier_jobs(pass_, stage, name_of(used)):
        if not is_being_deleted(one):
            pass_.give_up_job(one, "the job asks for another pod now")


def _earlier_jobs(pass_: Pass, stage: Stage, other_than: str) -> list[Manifest]:
    """Jobs of a shared stage that this job owns, with other names than one, the latest first."""
    wanted = {STAGE_LABEL: stage.name, KEY_LABEL: stage.key}
    found = [
        one
        for (kind, name), one in pass_.observed.objects.items()
        if kind == "Job"
        and name != other_than
        and pass_.owns(one)
        and wanted.items() <= labels_of(one).items()
    ]
    return sorted(found, key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)
