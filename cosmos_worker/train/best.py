"""The checkpoint with the lowest held-out loss: ``checkpoints/best.json`` names its step.

It follows from files alone: every checkpoint carries the loss that was taken at its step, so a run that was killed
between a checkpoint and this file knows its best as one that was not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import (
    BEST_FILE,
    EXPORT_FOLDER,
    write_json,
)
from cosmos_worker.train.checkpoint import (
    list_states,
    read_progress,
)
from cosmos_worker.train.export import list_exports

LOSS = "validation_loss"
"""Where a checkpoint's progress has its held-out loss."""


@dataclass(frozen=True)
class Best:
    """Step of a checkpoint and its held-out loss."""

    step: int
    validation_loss: float


def read_best(run: Path) -> Best:
    """The best checkpoint so far.

    Raises:
        CheckpointError: none was kept, or the file is damaged.
    """
    path = run / EXPORT_FOLDER / BEST_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file, so no checkpoint is known as the best; train with trainer.keep_best=true and "
            "held-out clips, or choose a step"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Best(int(document["step"]), float(document["validation_loss"]))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); choose a step") from None


def update_best(run: Path, done_steps: int) -> Best | None:
    """Write and return the best of what is there up to the steps done; None = no checkpoint has a held-out loss.

    Of equal losses the earlier step counts. What lies after the steps done is of an earlier life of the run, whose
    checkpoints are gone.
    """
    found = [best for best in (*_of_states(run), *_noted(run)) if best.step <= done_steps]
    path = run / EXPORT_FOLDER / BEST_FILE
    if not found:
        path.unlink(missing_ok=True)
        return None
    best = min(found, key=lambda one: (one.validation_loss, one.step))
    if _noted(run) != [best]:
        write_json(path, asdict(best))
    return best


def _of_states(run: Path) -> list[Best]:
    documents = [(step, read_progress(folder)) for step, folder in list_states(run)]
    return [Best(step, document[LOSS]) for step, document in documents if LOSS in document]


def _noted(run: Path) -> list[Best]:
    """What the file says, as long as the weights that it speaks of are there."""
    try:
        best = read_best(run)
    except CheckpointError:
        return []
    return [best] if best.step in list_exports(run, "reg") else []
