"""The job whose checkpoint a training is to begin with: of the same training, in the same volume. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass


def check_starting_point(pass_: Pass) -> None:
    """Let a job fail before it takes GPUs if the job that it names trains something else.

    A job that does not exist any more may have left its checkpoints: then the worker decides, as it does for a folder.
    """
    problem = pass_.observed.starting_problem
    if problem and not pass_.previous.attempts:
        pass_.fail_job("IncompatibleCheckpoint", problem)
