"""Links that lead out of a folder: they are not followed, as they could name any file that this process may read."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePath

SNAPSHOTS, BLOBS = "snapshots", "blobs"
"""Folders of a repository in the cache of the Hugging Face Hub, whose snapshots are links to its blobs."""


def leads_outside(root: Path, name: str | PurePath) -> bool:
    """True if a name below a folder is a link, or lies behind one, to something outside of the folder.

    Args:
        root: the folder; it may be a link itself.
        name: relative to it; may be of nothing that exists.

    Raises:
        OSError: the volume does not tell.
    """
    path = root / name
    parents = path.parents[: len(PurePath(name).parts) - 1]
    if not path.is_symlink() and not any(map(_is_linked_folder, parents)):
        return False
    target = Path(os.path.realpath(path))
    return not any(target.is_relative_to(one) for one in _own_folders(Path(os.path.realpath(root))))


@lru_cache(maxsize=1 << 16)
def _is_linked_folder(path: Path) -> bool:
    return path.is_symlink()


def _own_folders(root: Path) -> list[Path]:
    """The folder itself, and the blobs of the repository whose snapshot it is or lies in."""
    snapshots = [one.parent for one in (root, *root.parents) if one.parent.name == SNAPSHOTS]
    return [root, *(one.parent / BLOBS for one in snapshots)]
