"""Folders of published models: which job one belongs to."""

from __future__ import annotations

import json
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import DESCRIPTION_FILE, MODEL_FILE, Volumes


def check_not_foreign(target: Path, job: str, namespace: str | None = None) -> None:
    """Check that a published name is free or belongs to this job, by its description, which precedes the model.

    A job is known by its name and its namespace: several namespaces may share an export. A description of before
    namespaces were recorded has the name alone. A job that was deleted and created anew is the same job.

    Args:
        target: folder of the published model.
        job: name of the job.
        namespace: its namespace; None = it has none.

    Raises:
        CheckpointError: the folder holds a model without description, or a description of another job.
    """
    model, description = target / MODEL_FILE, target / DESCRIPTION_FILE
    if not model.exists() and not description.exists():
        return
    known = _read(description) if description.is_file() else {}
    owner, its_namespace = known.get("job"), known.get("namespace", namespace)
    if owner == job and its_namespace == namespace:
        return
    taken = model if model.exists() else description
    raise CheckpointError(
        f"{taken}: belongs to {_shown(owner, its_namespace)}, not to {_shown(job, namespace)}; "
        "choose another outputs.name, or move that folder away"
    )


def _read(description: Path) -> dict[str, str | None]:
    """The description of a published model.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        known = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{description}: is no JSON ({error}), so that it cannot be told whose model lies there; move that "
            "folder away, or choose another outputs.name"
        ) from None
    return known if isinstance(known, dict) else {}


def _shown(job: str | None, namespace: str | None) -> str:
    if job is None:
        return "nobody that published it"
    return job if namespace is None else f"{job} of namespace {namespace}"


def check_name_is_free(
    uri: str | None, job: str | None, namespace: str | None, volumes: Volumes
) -> None:
    """Check a folder in which a job will publish, as :func:`check_not_foreign`; nothing if it is not known.

    Raises:
        CheckpointError: another job's model lies there.
    """
    if uri is not None and job is not None:
        check_not_foreign(volumes.resolve(uri), job, namespace)
