"""One process at a time makes the same content: another that is to make it waits, and then finds it made."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.files import is_same_file, take_lock

logger = logging.getLogger(__name__)

LOCK_WAIT_S = 5.0
"""Seconds between two tries to take a lock that another process holds."""


@contextmanager
def only_maker(folder: Path, key: str) -> Iterator[None]:
    """Let no other process that asks here make the content of a key in a folder during the block.

    The lock is a file beside the folder, which ends with its process and is removed after the block. Who had to wait
    must look in the block whether the content is there. On a volume without locks nobody waits: files are written whole
    or not at all, so that work is done twice there and nothing is wrong.

    Args:
        folder: of the content; it may be absent.
        key: content key.
    """
    path = folder.with_name(f".{folder.name}.{key}.lock")
    handle = _lock(path, folder)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _lock(path: Path, folder: Path) -> int | None:
    """The descriptor of the locked file; None if the volume has no locks."""
    has_logged = False
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            is_ours = take_lock(handle, path) and is_same_file(handle, path)
        except ConfigError as error:
            os.close(handle)
            logger.warning("%s; going on without a lock", error)
            return None
        if is_ours:
            return handle
        os.close(handle)
        if not has_logged:
            logger.info("%s: another process makes the same; waiting for it", folder)
            has_logged = True
        time.sleep(LOCK_WAIT_S)
