"""The job whose checkpoint a training is to begin with: of the same training, in the same volume. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.plan.starting_job import describe_incompatibility


def check_starting_point(pass_: Pass) -> None:
    """Let a job fail before it takes GPUs if the job that it names trains something else.

    A job that does not exist any more may have left its checkpoints: then the worker decides, as it does for a folder.
    """
    document = pass_.observed.starting_job
    if document is None or pass_.previous.attempts:
        return
    if problem := describe_incompatibility(pass_.training_job, tuple(pass_.stages), document):
        pass_.fail_job("IncompatibleCheckpoint", problem)
