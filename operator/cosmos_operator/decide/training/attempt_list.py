"""The attempts that the status lists: recalled from the last pass, appended, updated, ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cosmos_operator.api.status import Attempt, Checkpoints, Outcome
from cosmos_operator.decide.endings import tell_others
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.training.outcomes import COUNTED
from cosmos_operator.decide.training.pods import Gang
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time, is_being_deleted, read_state
from cosmos_operator.kube.pods import Ending
from cosmos_operator.plan.backend import BACKENDS, Backend
from cosmos_operator.plan.edits import spec_key
from cosmos_operator.plan.names import attempt_name
from cosmos_operator.plan.stages import Stage
from cosmos_worker.config.stages import TrainConfig

MAX_LISTED = 10
"""Attempts that the status lists, the last ones."""
MAX_ATTEMPT_MESSAGE = 1024


def recall_attempts(pass_: Pass, backend: Backend) -> None:
    """Take over the attempts of the last status, and add those whose workload exists but whose status was lost."""
    pass_.attempts = pass_.previous.attempts
    pass_.failed_attempts = pass_.previous.failed_attempts
    if pass_.is_retrying:
        pass_.forgive_attempts()
    pass_.checkpoints = pass_.previous.checkpoints
    number = pass_.attempts[-1].number if pass_.attempts else 0
    while _own_workload(pass_, backend, number + 1) is not None:
        number += 1
        append_attempt(pass_, backend, number)


def append_attempt(pass_: Pass, backend: Backend, number: int, stage: Stage | None = None) -> None:
    """Append an attempt that begins now.

    Args:
        pass_: the pass.
        backend: kind of its workload.
        number: its number.
        stage: the training as spec asks for it; None for an attempt that has begun before, with an unknown spec.
    """
    attempt = Attempt.model_construct(
        number=number,
        backend=backend.kind,
        workload=attempt_name(pass_.job.name, number),
        spec_key=None if stage is None else spec_key(pass_.training_job),
        nodes=None if stage is None else stage.nodes,
        steps=None if stage is None else steps_of(stage),
        start_step=pass_.checkpoints.latest_step if pass_.checkpoints else None,
    )
    pass_.attempts = (*pass_.attempts, attempt)[-MAX_LISTED:]


def steps_of(stage: Stage) -> int:
    """Number of optimizer steps of the whole training."""
    assert isinstance(stage.document, TrainConfig)
    return stage.document.experiment.trainer.max_steps


def update_attempt(pass_: Pass, stage: Stage, gang: Gang) -> None:
    """Update steps, checkpoints and note of the latest attempt from its log and from the endings of its pods."""
    facts, endings = gang.facts, (*gang.endings, *gang.last_words)
    known = pass_.checkpoints.latest_step if pass_.checkpoints else None
    saved_step = _maximum([known, facts.checkpoint, *(ending.checkpoint for ending in endings)])
    if saved_step is not None:
        pass_.checkpoints = Checkpoints.model_construct(
            latest_step=saved_step, latest_address=gang.run_address(stage)
        )
    attempt = pass_.attempts[-1]
    end_step = _maximum([attempt.end_step, facts.step, *(ending.step for ending in endings)])
    _change_latest(pass_, end_step=end_step, start_step=facts.start_step)
    if gang.note and attempt.outcome == "Running":
        _change_latest(pass_, message=gang.note[:MAX_ATTEMPT_MESSAGE])
    if gang.workload is not None and attempt.start_time is None:
        _change_latest(pass_, start_time=gang.workload["metadata"]["creationTimestamp"])


def end_attempt(
    pass_: Pass, outcome: Outcome, message: str, ending: Ending | None = None, node: str = ""
) -> None:
    """End the latest attempt.

    Args:
        pass_: the pass.
        outcome: its outcome, which decides whether the attempt counts towards runPolicy.maxAttempts.
        message: explanation for people.
        ending: the ending that explains it, if a pod left one.
        node: the node to blame, if the ending names none.
    """
    is_counted = outcome in COUNTED
    _change_latest(
        pass_,
        outcome=outcome,
        message=message[:MAX_ATTEMPT_MESSAGE],
        counted=is_counted,
        exit_code=ending.exit_code if ending else None,
        node=(ending.node if ending else node) or node or None,
        finish_time=format_time(pass_.now),
    )
    pass_.failed_attempts += is_counted


def note_others(pass_: Pass, gang: Gang) -> None:
    """Add to the latest attempt that its pods are ended because other containers keep them."""
    note, message = next(filter(None, map(tell_others, gang.kept)), ""), pass_.attempts[-1].message
    if note and note not in message:
        text = f"{message}; {note}" if message else note
        _change_latest(pass_, message=text[:MAX_ATTEMPT_MESSAGE])


def delete_earlier_workloads(pass_: Pass, backend: Backend, number: int) -> None:
    """Delete the workloads of attempts before this one, whose finished pods were kept for their logs."""
    used = {one.number: BACKENDS[one.backend] for one in pass_.attempts}
    for earlier in range(max(1, number - MAX_LISTED), number):
        workload = _own_workload(pass_, used.get(earlier, backend), earlier)
        if workload is not None:
            pass_.delete(workload, f"attempt {number} has ended since")


def may_still_start(workload: Manifest) -> bool:
    """True if a workload has not ended and nobody deletes it, so that its controller may make pods for it."""
    return not is_being_deleted(workload) and read_state(workload).state in ("Active", "Suspended")


def _own_workload(pass_: Pass, backend: Backend, number: int) -> Manifest | None:
    """The workload of an attempt; None if it is absent or belongs to an earlier job of the same name."""
    found = pass_.observed.get(backend.kind, attempt_name(pass_.job.name, number))
    return found if found is not None and pass_.owns(found) else None


def _change_latest(pass_: Pass, **values: object) -> None:
    """Change values of the latest attempt; None leaves a value as it is."""
    update = {name: value for name, value in values.items() if value is not None}
    pass_.attempts = (*pass_.attempts[:-1], pass_.attempts[-1].model_copy(update=update))


def _maximum(steps: Sequence[int | None]) -> int | None:
    return max((step for step in steps if step is not None), default=None)
