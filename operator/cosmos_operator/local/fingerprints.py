"""The local paths of a job: made absolute, checked, and fingerprinted. Reads the disk, unlike ``plan``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cosmos_operator.api.check_pods import FileJob
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.source import Source
from cosmos_operator.api.v1alpha1 import SOURCES, PostTrainingJob, PostTrainingJobSpec
from cosmos_operator.errors import InvalidSpec
from cosmos_worker.config.values import shortened
from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import (
    ADDRESS,
    expanded_path,
    sha256_of_file,
)

HASHED_BYTES = 64 << 20
"""Size up to which a folder's content is hashed; of a larger one names, sizes and times are."""


J = TypeVar("J", PostTrainingJob, InferenceJob)


def with_absolute_paths(job: J, folder: Path) -> J:
    """A copy of the job whose local paths do not depend on the current folder.

    Args:
        job: the job.
        folder: folder of the job's file, to which relative paths are relative.

    Raises:
        InvalidSpec: a path that cannot be one.
    """

    def absolute(path: str) -> str:
        try:
            return str((folder / expanded_path(path)).resolve())
        except (ConfigError, OSError, RuntimeError) as error:  # the last of a circle of links
            raise InvalidSpec(
                [f"{job.name}: {shortened(path)!r} is no path of this machine: {error}"]
            ) from None

    def local(address: str | None) -> str | None:
        return address if address is None or ADDRESS.match(address) else absolute(address)

    def source(given: Source | None) -> Source | None:
        if given is None or given.path is None:
            return given
        return given.model_copy(update={"path": local(given.path)})

    spec = job.spec
    changed: dict[str, Any] = {}
    for name, fields in SOURCES.items():
        block = getattr(spec, name, None)
        if block is None:
            continue
        update = {field: source(getattr(block, field)) for field in fields}
        changed[name] = block.model_copy(update=update)
    if isinstance(spec, PostTrainingJobSpec) and (start := spec.checkpoints.start_from) is not None:
        start = start.model_copy(update={"folder": local(start.folder)})
        changed["checkpoints"] = spec.checkpoints.model_copy(update={"start_from": start})
    field, items = _items_of(job)
    changed[field] = tuple(_with_addresses(item, local) for item in items)
    return job.model_copy(update={"spec": spec.model_copy(update=changed)})


def _items_of(job: FileJob) -> tuple[str, tuple[InferenceItem, ...]]:
    """Name of the field with the inference items, and these."""
    if isinstance(job, InferenceJob):
        return "items", job.spec.items
    return "inference", job.spec.inference


def _with_addresses(
    item: InferenceItem, change: Callable[[str | None], str | None]
) -> InferenceItem:
    entries = item.inputs and tuple(
        entry.model_copy(
            update={
                "conditioning": change(entry.conditioning),
                "ground_truth": change(entry.ground_truth),
            }
        )
        for entry in item.inputs
    )
    return item.model_copy(update={"inputs": entries, "inputs_file": change(item.inputs_file)})


def local_paths(job: FileJob) -> Iterator[tuple[str, str]]:
    """(field, path) of everything that the job reads from this machine's disk."""
    for where, source in job.sources:
        if source.path is not None:
            yield f"{where}.path", source.path
    field, items = _items_of(job)
    for number, item in enumerate(items):
        if item.inputs_file is not None:
            yield f"spec.{field}[{number}].inputsFile", item.inputs_file
        for index, entry in enumerate(item.inputs or ()):
            where = f"spec.{field}[{number}].inputs[{index}]"
            yield f"{where}.conditioning", entry.conditioning
            if entry.ground_truth is not None:
                yield f"{where}.groundTruth", entry.ground_truth


def missing_paths(job: FileJob) -> list[tuple[str, str]]:
    """(field, path) of everything that does not exist on this machine."""
    return [
        (where, path)
        for where, path in local_paths(job)
        if not ADDRESS.match(path) and not os.path.exists(path)  # noqa: PTH110 - False for too long a name
    ]


def fingerprint_paths(job: FileJob) -> dict[str, str]:
    """Path → digest of its content, for every local path of the job.

    Raises:
        InvalidSpec: a path that does not exist.
    """
    if missing := missing_paths(job):
        raise InvalidSpec(
            f"{where}: no such file or folder: {path}; relative paths are relative to the job's file"
            for where, path in missing
        )
    paths = dict.fromkeys(path for _, path in local_paths(job) if not ADDRESS.match(path))
    return {path: fingerprint(Path(path)) for path in paths}


def fingerprint(path: Path) -> str:
    """Digest of a file or a folder, see ``HASHED_BYTES``: of its content, or of names, sizes and times."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [file.stat() for file in files]
    by_content = sum(stat.st_size for stat in stats) <= HASHED_BYTES
    entries = [
        (
            file.relative_to(path).as_posix(),
            stat.st_size,
            sha256_of_file(file) if by_content else stat.st_mtime_ns,
        )
        for file, stat in zip(files, stats, strict=True)
    ]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:16]
