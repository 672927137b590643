"""Another job's training run, compared with that of the job that is to begin with its checkpoint. Pure."""

from __future__ import annotations

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.edits import training_of
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.training_run import differing_training, run_address

FIELD = "spec.checkpoints.from.job"


def describe_incompatibility(
    job: PostTrainingJob, stages: tuple[Stage, ...], document: Manifest
) -> str:
    """The reason for which a job cannot take over the training of another one; empty if it can.

    Args:
        job: the job that is to begin with a checkpoint of the other.
        stages: its stages.
        document: the other job, as the API server has it; one that is not valid has trained nothing that is known.
    """
    other = plan_job(document)
    if other.job is None:
        return ""
    name = other.job.name
    own_volume, volume = (one.spec.storage.checkpoints for one in (job, other.job))
    if (volume.claim_name, volume.sub_path) != (own_volume.claim_name, own_volume.sub_path):
        return (
            f"{FIELD}: {name!r} has its checkpoints in claim {volume.claim_name!r} (spec.storage.checkpoints), this "
            f"job in {own_volume.claim_name!r}; create the job with the same claim and subPath"
        )
    own, found = training_of(stages), training_of(other.stages)
    if own.start_from is not None and own.start_from.run_uri == run_address(found):
        return ""
    differing = ", ".join(differing_training(found, own)) or "an input"
    return (
        f"{FIELD}: {name!r} is another training: {differing} (there -> here); create the job with the same values, or "
        "with the folder of that job's published model as spec.model.source, which goes on from its weights"
    )
