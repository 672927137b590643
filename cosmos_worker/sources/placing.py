"""Files into their target folder, all or none, moved, linked or copied; never over others of the same names."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import (
    sha256_of_file,
    sync_folder,
)

logger = logging.getLogger(__name__)

LINK_SIZE_BYTES = 64 << 20
"""Files of at least this size are hard-linked where source and target share a file system."""
Facts = dict[str, dict[str, int | str]]
"""File name → size_bytes and sha256."""


def place_files(files: Mapping[str, Path], target: Path, name: str, *, move: bool) -> Facts:
    """Put files into the target folder, all or none, and describe them.

    Args:
        files: name in the target → file to take.
        target: folder, may exist; a file in it that equals the wanted one stays.
        name: the artifact, for messages.
        move: the files may be taken away from where they are.

    Returns:
        File name → size in bytes and sha256.

    Raises:
        DataError: the target holds a different file of one of these names.
    """
    facts = {file: describe_file(path) for file, path in files.items()}
    absent = {}
    for file, path in files.items():
        present = target / file
        if not present.exists():
            absent[file] = path
        elif not present.samefile(path) and describe_file(present) != facts[file]:
            raise DataError(
                f"{name}: {present} exists with other content than the source's {path}; "
                "remove it if nothing needs it, or give the artifact another name"
            )
    if absent:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".incoming.") as folder:
            for file, path in absent.items():
                (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
                _take(path, Path(folder) / file, move=move)
            for file in absent:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / file).replace(target / file)
        for parent in {(target / file).parent for file in absent} | {target}:
            sync_folder(parent)
    logger.info("%s files=%d new=%d folder=%s", name, len(files), len(absent), target)
    return facts


def _take(path: Path, copy: Path, *, move: bool) -> None:
    """Move, hard-link or copy one file."""
    path = path.resolve()  # a cached file of the Hub is a link
    if move:
        shutil.move(path, copy)
        return
    if path.stat().st_size >= LINK_SIZE_BYTES:
        try:
            os.link(path, copy)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            logger.info("copying file=%s reason=%s", path, error.strerror)
    shutil.copyfile(path, copy)
    with copy.open("rb") as stream:
        os.fsync(stream.fileno())


def describe_file(path: Path) -> dict[str, int | str]:
    """Size in bytes and SHA-256."""
    size_bytes = path.stat().st_size
    if size_bytes >= LINK_SIZE_BYTES:
        logger.info("hashing file=%s mib=%d", path, size_bytes >> 20)
    return {"size_bytes": size_bytes, "sha256": sha256_of_file(path)}
