"""Locks of folders that one process at a time may write; they must hold across the nodes that share a volume."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from cosmos_worker.errors import ConfigError

UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems answer that are mounted without locks."""


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
