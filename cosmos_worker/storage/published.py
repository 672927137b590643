"""Folders of published models: which job one belongs to."""

from __future__ import annotations

import json
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import DESCRIPTION_FILE, MODEL_FILE, Volumes


def check_not_foreign(target: Path, job: str) -> None:
    """Check that a published name is free or belongs to this job, by its description, which precedes the model.

    Raises:
        CheckpointError: the folder holds a model without description, or a description of another job.
    """
    model, description = target / MODEL_FILE, target / DESCRIPTION_FILE
    if not model.exists() and not description.exists():
        return
    owner = (
        json.loads(description.read_text(encoding="utf-8")).get("job")
        if description.is_file()
        else None
    )
    if owner != job:
        taken = model if model.exists() else description
        raise CheckpointError(
            f"{taken}: belongs to {owner or 'nobody that published it'}, not to {job}; "
            "choose another outputs.name, or move that folder away"
        )


def check_name_is_free(uri: str | None, job: str | None, volumes: Volumes) -> None:
    """Check a folder in which a job will publish, as :func:`check_not_foreign`; nothing if it is not known.

    Raises:
        CheckpointError: another job's model lies there.
    """
    if uri is not None and job is not None:
        check_not_foreign(volumes.resolve(uri), job)
