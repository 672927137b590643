"""The name under which a new job publishes: refused at once where another job of the namespace has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cosmos_operator.api.status import NAME_TAKEN, read_status
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Pass
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, name_of
from cosmos_operator.plan.volumes import volume_folder


def check_published_name(pass_: Pass) -> bool:
    """True if the job's name is free for it to publish under; otherwise fails the job, or lets it wait.

    It is looked for until the job is accepted: from then on the name is this job's. A job that has failed gives the
    name up, so that it is looked for again when the job is told to try again.
    """
    if pass_.previous.was_accepted and not pass_.is_retrying:
        return True
    mine = _place(pass_.document)
    rivals = [
        one
        for one in pass_.observed.other_jobs
        if one["metadata"]["uid"] != pass_.uid and _place(one) == mine
    ]
    for rival in rivals:
        if _has_the_name(rival):
            _refuse(pass_, rival, mine)
            return False
    for rival in rivals:
        if not read_status(rival).conditions and _age(rival) < _age(pass_.document):
            pass_.propose_state(
                "Pending",
                f"waits for PostTrainingJob {name_of(rival)!r}, which wants the same spec.outputs.name, to be "
                "accepted or refused",
            )
            pass_.requeue_after(SHORT_WAIT_S)
            return False
    return True


def _refuse(pass_: Pass, rival: Manifest, place: tuple[str, str, str]) -> None:
    claim, folder, name = place
    message = (
        f"spec.outputs.name: PostTrainingJob {name_of(rival)!r} publishes as {name!r} too, in folder {folder!r} of "
        f"claim {claim!r}; give this job another spec.outputs.name and raise its spec.runPolicy.retry"
    )
    pass_.set_condition("Accepted", "False", NAME_TAKEN, message)
    pass_.fail_job(NAME_TAKEN, message)


def _place(document: Manifest) -> tuple[str, str, str]:
    """Claim, folder and name of the model that a job publishes."""
    spec = document["spec"]
    storage = (spec.get("storage") or {}).get("checkpoints") or {}
    name = (spec.get("outputs") or {}).get("name") or name_of(document)
    return (*volume_folder(storage, "checkpoints"), name)


def _has_the_name(other: Manifest) -> bool:
    """True if another job has published under its name, or has been accepted and may still do so."""
    status = read_status(other)
    answers = {one.type: one.status for one in status.conditions}
    if answers.get("Published") == "True":
        return True
    is_over = answers.get("Failed") == "True" or is_being_deleted(other)
    return status.was_accepted and not is_over


def _age(document: Manifest) -> tuple[str, str]:
    """A value by which jobs are sorted, the oldest first."""
    metadata: Mapping[str, str] = document["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["uid"]
