"""Files and folders of a shared volume: locks across nodes, full disks, failing volumes; words for messages."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cosmos_worker.errors import ConfigError, RetryableError

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors that a file system without locks gives for flock."""
READ_BYTES = 4 << 20
"""Bytes that :func:`read_through` reads at a time."""


def take_lock(handle: int, path: Path) -> bool:
    """Take the lock of an open file without waiting; it is held until the file is closed.

    Args:
        handle: descriptor of the file.
        path: its name, for messages.

    Returns:
        False if another process holds it.

    Raises:
        ConfigError: the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise ConfigError(
            f"{path}: got '{error.strerror}' for a lock (flock), without which two processes could write the same "
            "folder; mount the volume with locks that hold across nodes: Lustre with -o flock, NFS as version 4 or "
            "with a lock daemon"
        ) from error
    return True


def is_same_file(handle: int, path: Path) -> bool:
    """True if the locked file still has this name, and was not removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def reporting_full_disk(folder: Path) -> Iterator[None]:
    """Turn a failed write into an error with the free space of the disk.

    Raises:
        RetryableError: the write failed; earlier checkpoints are intact.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        usage = shutil.disk_usage(folder)
        raise RetryableError(
            f"{folder}: cannot write a checkpoint ({' '.join(str(error).split())[:160]}); {usage.free / 2**30:.2f} GiB "
            f"of {usage.total / 2**30:.2f} GiB are free; make room or lower trainer.keep_last and "
            "trainer.keep_exports; earlier checkpoints are intact"
        ) from error


def read_through(path: Path) -> None:
    """Read a file that seems damaged from end to end: the file is at fault only if its volume gives all of it.

    A file that does not exist is left to the caller.

    Raises:
        OSError: the volume does not give the content, so that nothing is known of the file; a later attempt may.
    """
    try:
        with path.open("rb") as stream:
            while stream.read(READ_BYTES):
                pass
    except FileNotFoundError:
        return
    except OSError as error:
        if error.filename is None:  # it failed after it was opened
            error.filename = str(path)
        raise


def folder_content(folder: Path, limit: int = 8) -> str:
    """First names in a folder, for messages."""
    if not folder.is_dir():
        return "nothing: it does not exist"
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return shorten(names, limit)


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """First of many names, for messages."""
    shown = ", ".join(names[:limit]) or "nothing"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun, for messages: ``1 frame``, ``2 frames``.

    Args:
        number: how many.
        singular: the noun for one.
        plural: the noun for any other number, if it is not the singular with an s.
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
