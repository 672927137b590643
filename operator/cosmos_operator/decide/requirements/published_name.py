"""The name under which a new job publishes: refused at once where another job of the namespace has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cosmos_operator.api.status import NAME_TAKEN, read_status
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, name_of
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.plan.volumes import volume_folder


def check_published_name(pass_: Pass) -> bool:
    """True unless another job publishes under the same name on the same claim; otherwise fails the job.

    It is looked for once, before the job is accepted: afterwards the name is this job's.
    """
    if pass_.previous.was_accepted:
        return True
    job, mine = pass_.job, _place(pass_.document)
    holder = next(
        (
            name_of(one)
            for one in pass_.observed.other_jobs
            if one["metadata"]["uid"] != pass_.uid
            and _place(one) == mine
            and _holds(one, pass_.document)
        ),
        None,
    )
    if holder is None:
        return True
    claim, folder, name = mine
    advice = "another" if job.spec.outputs.name else "one"
    message = (
        f"spec.outputs.name: PostTrainingJob {holder!r} publishes as {name!r} in folder {folder!r} of claim {claim!r} "
        f"too; delete this job and create it with {advice} spec.outputs.name of its own"
    )
    pass_.set_condition("Accepted", "False", NAME_TAKEN, message)
    pass_.fail_job(NAME_TAKEN, message)
    return False


def _place(document: Manifest) -> tuple[str, str, str]:
    """Claim, folder and name of the model that a job publishes."""
    spec = document["spec"]
    storage = (spec.get("storage") or {}).get("checkpoints") or {}
    name = (spec.get("outputs") or {}).get("name") or name_of(document)
    return (*volume_folder(storage, "checkpoints"), name)


def _holds(other: Manifest, document: Manifest) -> bool:
    """True if another job has published under its name, or will do so and was there first."""
    status = read_status(other)
    answers = {one.type: one.status for one in status.conditions}
    if answers.get("Published") == "True":
        return True
    if answers.get("Failed") == "True" or is_being_deleted(other):
        return False
    if status.conditions and status.was_accepted:
        return True
    return _age(other) < _age(document) and not plan_job(other).problems


def _age(document: Manifest) -> tuple[str, str]:
    """A value by which jobs are sorted, the oldest first."""
    metadata: Mapping[str, str] = document["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["uid"]
