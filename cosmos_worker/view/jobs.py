"""The jobs in a folder: one for each output root, with its run and the videos that were generated. No torch here.

A folder is searched as the worker lays it out: ``checkpoints/JOB-KEY/PROJECT/GROUP/NAME`` is a run,
``checkpoints/JOB-KEY/generated/ITEM-KEY`` holds videos, ``checkpoints/NAME/model.json`` is a published model. The
folder may be a claim, the workspace of ``cosmos run``, or one above several of these. Folders of datasets are not
entered, so that their size does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.storage.earlier_runs import KEYED_NAME
from cosmos_worker.storage.volumes import (
    DESCRIPTION_FILE,
    GENERATED_FILE,
    METRICS_FILE,
    REPORT_FILE,
    RESOLVED_CONFIG_FILE,
    VOLUMES,
)
from cosmos_worker.view.folders import Folders

MARKER = re.compile(r"complete-[0-9a-z-]+\.json")
CLAIM_DEPTH = 3
"""Folders between the given one and a claim, at most."""
RUN_DEPTH = 3
"""Folders between an output root and its run: PROJECT, GROUP and NAME."""
ITEMS_FOLDER = "generated"


@dataclass(frozen=True)
class Item:
    """A folder of generated videos: its name in the job, its path, and True if the list of its videos is there."""

    name: str
    folder: Path
    is_complete: bool


@dataclass(frozen=True)
class Job:
    """An output root: what one job has left, or is about to.

    Attributes:
        address: of the folder, see `folders`.
        name: of the job, as far as the folder's name tells it.
        folder: the output root.
        run: folder of the training; None = the job trains nothing.
        is_complete: the completion marker of the training is there.
        changed: seconds since the epoch of the latest sign of life.
    """

    address: str
    name: str
    folder: Path
    run: Path | None
    is_complete: bool
    changed: float


def find_claims(folders: Folders, names: tuple[str, ...] = VOLUMES) -> list[Path]:
    """Folders that hold the folders of volumes; the given one itself if none does."""
    found = list(_claims_below(folders, folders.main, CLAIM_DEPTH, names))
    return found or [folders.main]


def _claims_below(
    folders: Folders, folder: Path, depth: int, names: tuple[str, ...]
) -> Iterator[Path]:
    inner = folders.subfolders(folder)
    if any(one.name in names for one in inner):
        yield folder
    elif depth:
        for one in inner:
            yield from _claims_below(folders, one, depth - 1, names)


def find_jobs(folders: Folders) -> list[Job]:
    """All jobs of the folder, the one with the latest sign of life first."""
    found = []
    for claim in find_claims(folders, ("checkpoints",)):
        checkpoints = claim / "checkpoints"
        roots = folders.subfolders(checkpoints if checkpoints.is_dir() else claim)
        found += [job for root in roots if (job := read_job(folders, root)) is not None]
        if not checkpoints.is_dir() and (own := read_job(folders, claim)) is not None:
            found.append(own)
    return sorted(found, key=lambda job: (-job.changed, job.address))


def read_job(folders: Folders, root: Path) -> Job | None:
    """The job of an output root; None if neither a run nor generated videos are in it."""
    entries = folders.entries(root)
    names = {one.name for one in entries}
    run = _find_run(folders, root, names, RUN_DEPTH)
    has_items = ITEMS_FOLDER in names
    if run is None and not has_items:
        return None
    match = KEYED_NAME.match(root.name)
    address = folders.address_of(root)
    if address is None:
        return None
    signs = [root, root / ITEMS_FOLDER] if run is None else [run / METRICS_FILE, run]
    return Job(
        address=address,
        name=match["job"] if match else root.name,
        folder=root,
        run=run,
        is_complete=any(MARKER.fullmatch(name) for name in names),
        changed=max((_time(one) for one in signs), default=0.0),
    )


def _find_run(folders: Folders, folder: Path, names: set[str], depth: int) -> Path | None:
    if names & {METRICS_FILE, RESOLVED_CONFIG_FILE}:
        return folder
    if depth == 0:
        return None
    for one in folders.subfolders(folder):
        if one.name == ITEMS_FOLDER or one.name.startswith(("report-", "inputs-")):
            continue
        inner = {entry.name for entry in folders.entries(one)} if depth <= RUN_DEPTH else set()
        found = _find_run(folders, one, inner, depth - 1)
        if found is not None:
            return found
    return None


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def find_items(folders: Folders, job: Job) -> list[Item]:
    """The folders of generated videos of a job, by name."""
    found = []
    for folder in folders.subfolders(job.folder / ITEMS_FOLDER):
        match = KEYED_NAME.match(folder.name)
        name = match["job"] if match else folder.name
        found.append(Item(name, folder, (folder / GENERATED_FILE).is_file()))
    return found


def find_reports(folders: Folders, job: Job) -> list[Path]:
    """The reports of a job, the latest first."""
    reports = [folder / REPORT_FILE for folder in folders.subfolders(job.folder)]
    return sorted((one for one in reports if one.is_file()), key=_time, reverse=True)


def find_published(folders: Folders, job: Job) -> list[Path]:
    """Folders of models that the job has published, beside its output root."""
    found = []
    for folder in folders.subfolders(job.folder.parent):
        description = folder / DESCRIPTION_FILE
        if KEYED_NAME.match(folder.name) or not description.is_file():
            continue
        if folders.json_object(description).get("job") == job.name:
            found.append(folder)
    return found
