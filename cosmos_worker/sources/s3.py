"""Objects of a bucket as files: those below a prefix, or a single one, downloaded once and completely."""

from __future__ import annotations

import logging
import os
import shutil
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cosmos_worker.config.source import S3Source
from cosmos_worker.errors import DataError
from cosmos_worker.sources.s3_bucket import (
    Bucket,
    StoredObject,
)
from cosmos_worker.sources.s3_download import (
    NUM_CONNECTIONS,
    OBJECTS_FILE,
    ObjectRecords,
    download_objects,
)
from cosmos_worker.storage.files import counted, is_same_file, take_lock
from cosmos_worker.storage.volumes import WEIGHT_SUFFIXES

logger = logging.getLogger(__name__)

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OBJECT_FOLDER = "objects"
EXTRACTED = "extracted."
"""Beginning of the names of temporary folders, in the folder of a download, that archives are extracted into."""
LOCK_WAIT_S = 5.0
RECORDS_FILE = f"fetched-{OBJECTS_FILE}"
"""In a folder with fetched objects: size_bytes, etag and sha256 of each."""

Choose = Callable[[Sequence[str]], list[str]]
"""Picks the wanted files from the names of all objects below the prefix."""
MAX_PART_BYTES = 255
"""Longest name of a file or folder on common file systems."""
SHOWN = 5


def download_source(source: S3Source, partial: Path, choose: Choose) -> Path:
    """Download the wanted objects of a source; what an earlier attempt has got is not fetched again.

    Args:
        source: address of a prefix or of a single object.
        partial: folder of this download; after a failure it stays, for the next attempt.
        choose: picks the wanted objects of a prefix; not asked about a single object.

    Returns:
        ``partial/objects`` with the wanted objects, or the file of a single object in it.

    Raises:
        DataError: nothing there, no access, no S3 store, or names that cannot be files.
        RetryableError: the network fails, or objects change meanwhile.
    """
    bucket = Bucket(source, NUM_CONNECTIONS)
    single = _single_object(bucket)
    if single is None:
        listed = _objects_below(bucket)
        names = choose(list(listed))
        wanted = {name: listed[name] for name in names}
    else:
        wanted = {single.key.rpartition("/")[2]: single}
    refuse_names(wanted, bucket.where)
    partial.mkdir(parents=True, exist_ok=True)
    folder = partial / OBJECT_FOLDER
    with ObjectRecords(partial / OBJECTS_FILE) as records:
        download_objects(bucket, wanted, folder, records)
        records.write(partial / RECORDS_FILE, list(wanted))
    return folder if single is None else folder / next(iter(wanted))


def is_archive(name: str) -> bool:
    """True if a name ends as that of a tar archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def _single_object(bucket: Bucket) -> StoredObject | None:
    """The object with the key of a uri, if it exists and its name ends as that of an archive or of weights."""
    if bucket.key.endswith("/") or not bucket.key.lower().endswith(
        ARCHIVE_SUFFIXES + WEIGHT_SUFFIXES
    ):
        return None
    return bucket.find(bucket.key)


def _objects_below(bucket: Bucket) -> dict[str, StoredObject]:
    """Name below the prefix → object.

    Raises:
        DataError: there is none.
    """
    prefix = bucket.key if not bucket.key or bucket.key.endswith("/") else f"{bucket.key}/"
    found = {item.key.removeprefix(prefix): item for item in bucket.list_objects(prefix)}
    if found:
        return found
    if not bucket.key.endswith("/") and bucket.key and bucket.find(bucket.key) is not None:
        allowed = ", ".join((*ARCHIVE_SUFFIXES, *WEIGHT_SUFFIXES))
        raise DataError(
            f"{bucket.where}: is a single object, of which only {allowed} can be taken; give the prefix that it lies "
            "below, or pack it"
        )
    raise DataError(
        f"{bucket.where}: no object is there; {bucket.names_near(bucket.key)}; correct uri"
    )


@contextmanager
def locked_download(partial: Path) -> Iterator[None]:
    """Lock the folder of a download; another process that downloads the same waits.

    Remains of killed extractions are removed first. The lock is a file beside the folder; both are removed once the
    block has succeeded. A process that had to wait must check in the block if the download is still needed.
    """
    path, has_logged = partial.with_name(f"{partial.name}.lock"), False
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if take_lock(handle, path):
                if not is_same_file(handle, path):  # removed meanwhile
                    continue
                for left in partial.glob(f"{EXTRACTED}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
                shutil.rmtree(partial, ignore_errors=True)
                path.unlink()
                return
        finally:
            os.close(handle)
        if not has_logged:
            logger.info("%s: another process downloads the same; waiting for it", partial)
            has_logged = True
        time.sleep(LOCK_WAIT_S)


# --- names of objects --------------------------------------------------------------------------


def refuse_names(names: Collection[str], where: str) -> None:
    """Refuse names that leave the folder, that no file can have, or that stand for one file twice.

    Args:
        names: names relative to the folder, with forward slashes.
        where: address of the folder, for the message.

    Raises:
        DataError: with the first of these names and what is wrong with each.
    """
    problems = {name: problem for name in names if (problem := _problem(name)) is not None}
    problems |= _collisions(names)
    if not problems:
        return
    shown = "; ".join(f"{name!r} {problem}" for name, problem in list(problems.items())[:SHOWN])
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise DataError(
        f"{where}: {len(problems)} of {counted(len(names), 'object')} cannot become files: {shown}{more}; rename "
        "them in the bucket, or give a prefix without them"
    )


def _problem(name: str) -> str | None:
    parts = name.split("/")
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts or "." in parts:
        return "leaves the folder" if ".." in parts else "has a part '.'"
    if "" in parts:
        return "has an empty part"
    if "\\" in name:
        return "has a backslash"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "has a control character"
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES for part in parts):
        return f"has a part of more than {MAX_PART_BYTES} bytes"
    return None


def _collisions(names: Collection[str]) -> dict[str, str]:
    """Names that differ by case or normalisation only, and files that others need as a folder."""
    problems: dict[str, str] = {}
    first: dict[str, str] = {}
    there = set(names)
    for name in sorted(there):
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            problems[name] = f"differs from {other!r} by case or Unicode form only"
        folder = name.rpartition("/")[0]
        while folder and folder not in there:
            folder = folder.rpartition("/")[0]
        if folder:
            problems[name] = f"lies in {folder!r}, which is an object itself"
    return problems
