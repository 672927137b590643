"""Compare files with the digests that were recorded when they were fetched or published; cheap for untouched files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    sha256_of_file,
    write_json,
)

logger = logging.getLogger(__name__)

RECORD_PATTERN = "fetched-*.json"
REMADE = "remove the folder and run the stage again that made it"
SAMPLE_BYTES, NUM_SAMPLES = 1 << 16, 64
"""Blocks of a file that are compared at every load: 4 MiB, of a smaller file all of it."""


def digest_of_files(files: Mapping[str, Mapping[str, Any]]) -> str:
    """One SHA-256 for several files: that of the lines that ``sha256sum`` prints for them, sorted by name.

    Args:
        files: name → facts with the file's ``sha256``.
    """
    lines = "".join(f"{files[name]['sha256']}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def sample_digest(path: Path) -> str:
    """SHA-256 of a file's size and of blocks of it, evenly spaced."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        if size <= SAMPLE_BYTES * NUM_SAMPLES:
            digest.update(stream.read())
        else:
            for number in range(NUM_SAMPLES):
                stream.seek((size - SAMPLE_BYTES) * number // (NUM_SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def stamp(path: Path) -> dict[str, Any]:
    """Facts recorded beside a file's size and digest, by which it is known again without reading it whole."""
    return {"mtime_ns": path.stat().st_mtime_ns, "sample_sha256": sample_digest(path)}


def recorded(path: Path) -> tuple[Mapping[str, Any], Path] | None:
    """The recorded facts of a file, and the record, in its folder or the one above, that has them; None without one."""
    for folder in (path.parent, path.parent.parent):
        name = path.relative_to(folder).as_posix()
        for record in sorted(folder.glob(RECORD_PATTERN)):
            facts = _facts_of(_read(record), name)
            if facts is not None:
                return facts, record
        description = folder / DESCRIPTION_FILE
        if not description.is_file():
            continue
        facts = _facts_of(_read(description), name)
        if facts is not None:
            return facts, description
    return None


def check_folder_whole(folder: Path, first: int = 0, step: int = 1) -> int:
    """Read every file that the records of a folder name, and compare its size and its SHA-256 with the recorded ones.

    Args:
        folder: of fetched or published files; one without records has nothing to compare with.
        first: number of the first file to read, in the order of the records.
        step: difference to the next one, so that several processes can share the work.

    Returns:
        Number of files that were compared.

    Raises:
        CheckpointError: a file is missing or is not the recorded one.
    """
    records = [*sorted(folder.glob(RECORD_PATTERN)), folder / DESCRIPTION_FILE]
    named = [
        (folder / name, facts, record)
        for record in records
        if record.is_file()
        for name, facts in _files_of(record).items()
    ]
    for path, facts, record in named[first::step]:
        size = facts.get("size_bytes", facts.get("bytes"))
        if not path.is_file():
            raise CheckpointError(f"{path}: is gone, although {record.name} names it; {REMADE}")
        if (size is not None and path.stat().st_size != size) or sha256_of_file(path) != facts.get(
            "sha256"
        ):
            raise CheckpointError(
                f"{path}: not the file that {record.name} records, by its SHA-256; {REMADE}"
            )
    return len(named[first::step])


def _files_of(record: Path) -> dict[str, dict[str, Any]]:
    """The files that a record, or the description of a published model, names, with their facts.

    Raises:
        CheckpointError: the record is damaged.
    """
    document = _read(record)
    files = document.get("files")
    if record.name == DESCRIPTION_FILE:
        return {MODEL_FILE: document} if "sha256" in document else {}
    if not isinstance(files, dict) or not all(isinstance(one, dict) for one in files.values()):
        raise CheckpointError(f"{record}: is damaged; {REMADE}")
    return files


def check_recorded(path: Path) -> bool:
    """Compare a file with the facts that are recorded of it.

    Size and a sample are compared at every load; the whole file only if it was written to, or copied, since, and then
    once where the record can be written.

    Returns:
        True if its content is known to be the recorded one; False if nothing is recorded.

    Raises:
        CheckpointError: it is another file.
    """
    found = recorded(path)
    if found is None:
        return False
    facts, record = found
    was_hashed = False
    size = facts.get("size_bytes", facts.get("bytes"))
    expected = facts.get("sha256")
    if not isinstance(expected, str):
        return False
    status = path.stat()
    same = size is None or status.st_size == size
    if same and "sample_sha256" in facts:
        same = sample_digest(path) == facts["sample_sha256"]
    if same and status.st_mtime_ns != facts.get("mtime_ns"):
        logger.info("hashing file=%s mib=%d", path, status.st_size >> 20)
        same, was_hashed = sha256_of_file(path) == expected, True
    if not same:
        raise CheckpointError(
            f"{path}: not the file that {record.name} records, of {size} bytes (it has {status.st_size}); if it was "
            f"changed on purpose, put it into a folder of its own without {record.name}, under another name; else "
            "remove it and run the stage again that made it"
        )
    if was_hashed:
        _renew_stamp(path, record, expected, status.st_mtime_ns)
    return True


def _renew_stamp(path: Path, record: Path, sha256: str, mtime_ns: int) -> None:
    """Record the time of writing of a file that was hashed whole, so that the next load need not; if it can be written.

    Processes that do so at once write the same of the same file; of two files of a record, one may be hashed again.
    """
    document = _read(record)  # as it is now: hashing may have taken minutes
    facts = _facts_of(document, path.relative_to(record.parent).as_posix())
    if facts is None or facts.get("sha256") != sha256 or facts.get("mtime_ns") == mtime_ns:
        return
    facts |= {"mtime_ns": mtime_ns, "sample_sha256": sample_digest(path)}
    try:
        write_json(record, document)
    except OSError as error:  # such as a volume that is only read
        logger.info("%s: not renewed, so %s is hashed again (%s)", record, path, error.strerror)


def _facts_of(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The part of a record, or of a model's description, that is of a file."""
    files = document.get("files")
    facts = files.get(name) if isinstance(files, dict) else None
    if facts is None and name == MODEL_FILE and "sha256" in document:
        facts = document
    return facts if isinstance(facts, dict) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
