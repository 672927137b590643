"""Files and folders on claims that stages have made, with sizes, and whether anybody works in them now."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.files import take_lock
from cosmos_worker.storage.volumes import DESCRIPTION_FILE, TEMPORARY, Volumes

KEYED = re.compile(r"^.+-[0-9a-f]{12}$")
INDEX = re.compile(r"^index-[0-9a-f]{12}$")
EMBEDDINGS = re.compile(r"^(text-.+|latents)-[0-9a-f]{12}$")
RECORDS = ("fetched-*.json", "complete-*.json")
"""Files that fetch-model leaves in the folders that it fills."""
ASIDE = re.compile(r"^\.pruned\.(?P<name>.+)$")
"""A folder that a prune had set aside when it was killed."""
LEFTOVERS = (
    TEMPORARY,
    ASIDE,
    re.compile(r"^\.(?P<name>.+)\.[0-9a-f]{12}\.(lock|partial)$"),
    re.compile(r"^\.(?P<name>.+)\.[a-z0-9_]{8}$"),  # of tempfile.TemporaryDirectory
)
"""Names of what killed processes leave; ``name`` is that of what was being made."""


@dataclass(frozen=True)
class Content:
    """A file or a folder on a volume that can be removed as a whole."""

    volume: str
    """Name of the volume, such as models."""
    path: Path
    """Its place on this machine."""
    root: Path
    """Folder of the volume on this machine."""
    kind: str
    """What it is, in words."""
    name: str
    """The name by which jobs refer to it."""
    is_result: bool = False
    """True for runs, videos, published models and files of people: they are removed only if they are named."""

    @property
    def address(self) -> str:
        """``VOLUME/PATH``, as it is printed and given to --also."""
        return f"{self.volume}/{self.path.relative_to(self.root).as_posix()}"


@dataclass(frozen=True)
class Usage:
    """Space and age of a file or a folder with all that is in it."""

    size_bytes: int
    """Bytes on the disk."""
    changed_at: float
    """Time of the newest change in it, in seconds since 1970."""


def list_content(volumes: Volumes) -> Iterator[Content]:
    """Everything on the volumes that stands for itself, in the order of its address; links are passed over."""
    for volume, root in sorted(volumes.roots.items()):
        for path in _sorted(root):
            if not path.is_symlink():
                yield from _list_entry(volume, root, path)


def _list_entry(volume: str, root: Path, path: Path) -> Iterator[Content]:
    name = path.name
    if leftover := _leftover(volume, root, path):
        yield leftover
    elif volume == "datasets" and KEYED.match(name) and _is_dataset(path):
        yield Content(volume, path, root, "dataset, with its indexes", name)
        for inner in _sorted(path):
            if INDEX.match(inner.name):
                yield Content(volume, inner, root, "index of a dataset", inner.name)
            elif leftover := _leftover(volume, root, inner):
                yield leftover
    elif volume == "embeddings" and EMBEDDINGS.match(name) and path.is_dir():
        kind = "latents" if name.startswith("latents-") else "embeddings of texts"
        yield Content(volume, path, root, kind, name)
    elif volume == "models" and KEYED.match(name) and _is_fetched(path):
        yield Content(volume, path, root, "fetched model", name)
    else:
        yield Content(volume, path, root, _kind_of_result(volume, path), name, is_result=True)


def _leftover(volume: str, root: Path, path: Path) -> Content | None:
    for pattern in LEFTOVERS:
        if match := pattern.match(path.name):
            return Content(volume, path, root, "left by a process that ended", match["name"])
    return None


def _is_dataset(path: Path) -> bool:
    """True for a folder that prepare-dataset has made: nothing but data and indexes."""
    names = [one.name for one in _sorted(path) if not one.name.startswith(".")]
    return path.is_dir() and all(name == "data" or INDEX.match(name) for name in names)


def _is_fetched(path: Path) -> bool:
    return path.is_dir() and any(any(path.glob(pattern)) for pattern in RECORDS)


def _kind_of_result(volume: str, path: Path) -> str:
    if volume == "checkpoints" and path.is_dir():
        if (path / DESCRIPTION_FILE).is_file():
            return "published model"
        if KEYED.match(path.name):
            return "run and videos of a job"
    return "not made by a preparing stage"


def _sorted(folder: Path) -> list[Path]:
    """Content of a folder; nothing if it is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def measure(path: Path) -> Usage:
    """Space and age of a file or a folder; what vanishes meanwhile is not counted."""
    status = path.lstat()
    size, changed, seen = _size(status), status.st_mtime, {status.st_ino}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - of many files
            except FileNotFoundError:
                continue
            changed = max(changed, status.st_mtime)
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += _size(status)
    return Usage(size, changed)


def _size(status: os.stat_result) -> int:
    return status.st_blocks * 512


def find_holder(path: Path) -> Path | None:
    """A lock in a folder, or beside it and named after it, that a process holds now; None if there is none.

    Raises:
        OSError: the volume does not tell.
    """
    beside = path.parent.glob(f".{_quoted(path.name)}.*.lock")
    own = [path] if path.suffix == ".lock" else []
    return next((lock for lock in (*own, *beside, *_locks_in(path)) if _is_held(lock)), None)


def _quoted(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _locks_in(path: Path) -> Iterable[Path]:
    for folder, _, files in os.walk(path):
        yield from (Path(folder, name) for name in files if name.endswith(".lock"))


def _is_held(lock: Path) -> bool:
    """True if another process holds a lock, or may; False where the volume has no locks: nobody can hold one there."""
    try:
        # NFS locks only what is open for writing
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return False
        return not take_lock(handle, lock)
    except ConfigError:
        return False
    finally:
        os.close(handle)
