"""Git LFS pointers: the small text files that stand for large files in a repository cloned without Git LFS."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from cosmos_worker.data.dataset_files import VIDEO_ENDINGS, ending_of
from cosmos_worker.errors import DataError
from cosmos_worker.storage.file_kinds import (
    MAX_POINTER_BYTES,
    PULL,
    is_pointer,
)

logger = logging.getLogger(__name__)

POINTER_BYTES = range(100, MAX_POINTER_BYTES + 1)
"""Sizes that a pointer can have; Git LFS writes about 130 bytes."""


def refuse_dataset_of_pointers(
    root: Path, stamps: Mapping[str, tuple[int, int] | None], max_bad_fraction: float
) -> None:
    """Refuse a dataset of pointers with one error, before each of its clips is reported.

    Args:
        root: the dataset's folder.
        stamps: its files relative to it → size in bytes and time; None = absent.
        max_bad_fraction: share of files that may be pointers to videos, which the check then drops one by one.

    Raises:
        DataError: more videos are pointers, or any file that holds captions, annotations or tables is one.
    """
    small = [name for name, stamp in stamps.items() if stamp and stamp[0] in POINTER_BYTES]
    pointers = [name for name in small if is_pointer(root / name)]
    if not pointers:
        return
    texts = [name for name in pointers if not _is_video(name)]
    found = (
        f"{root}: {len(pointers)} of {len(stamps)} files are Git LFS pointers instead of the files, such as "
        f"{(texts or pointers)[0]}; {PULL}"
    )
    if texts or len(pointers) > max_bad_fraction * len(stamps):
        raise DataError(f"{found}, or fetch the files from where they are stored")
    logger.warning("%s", found)


def _is_video(name: str) -> bool:
    return ending_of(name) in VIDEO_ENDINGS
