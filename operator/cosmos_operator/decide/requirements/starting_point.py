"""The job whose checkpoint a training is to begin with: of the same training, in the same volume. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.plan.edits import training_of
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.plan.training_run import differing_training, run_address

FIELD = "spec.checkpoints.from.job"


def check_starting_point(pass_: Pass) -> None:
    """Let a job fail before it takes GPUs if the job that it names trains something else.

    A job that does not exist any more may have left its checkpoints: then the worker decides, as it does for a folder.
    """
    start = pass_.job.spec.checkpoints.start_from
    document = pass_.observed.starting_job
    if start is None or document is None or pass_.attempts or pass_.previous.attempts:
        return
    other = plan_job(document)
    if other.job is None:
        return
    own_volume, volume = (job.spec.storage.checkpoints for job in (pass_.job, other.job))
    own_claim = (own_volume.claim_name, own_volume.sub_path)
    if (volume.claim_name, volume.sub_path) != own_claim:
        pass_.fail_job(
            "IncompatibleCheckpoint",
            f"{FIELD}: {start.job!r} has its checkpoints in claim {volume.claim_name!r} (spec.storage.checkpoints), "
            f"this job in {own_volume.claim_name!r}; create the job with the same claim and subPath",
        )
        return
    own, found = training_of(tuple(pass_.stages)), training_of(other.stages)
    if own.start_from is not None and own.start_from.run_uri == run_address(found):
        return
    differing = ", ".join(differing_training(found, own)) or "an input"
    pass_.fail_job(
        "IncompatibleCheckpoint",
        f"{FIELD}: {start.job!r} is another training: {differing} (there -> here); create the job with the same "
        "values, or with the folder of that job's published model as spec.model.source, which goes on from its weights",
    )
