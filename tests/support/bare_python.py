"""A folder of packages as a bare machine has them: some distributions and what they require, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def link_packages(folder: Path, names: Iterable[str]) -> None:
    """Fill a folder with links to the installed packages; Python with ``-S`` and it as PYTHONPATH finds no others.

    Args:
        folder: is created.
        names: of distributions; those that they require come with them, extras do not.
    """
    folder.mkdir()
    for found in _with_requirements(names):
        for top in {file.parts[0] for file in found.files or ()}:
            source = Path(str(found.locate_file(top)))
            link = folder / top
            if top not in ("..", "__pycache__") and source.exists() and not link.exists():
                link.symlink_to(source)


def _with_requirements(names: Iterable[str]) -> Iterator[Distribution]:
    pending, seen = [canonicalize_name(name) for name in names], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        yield found
        for text in found.requires or ():
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                pending.append(canonicalize_name(one.name))
