"""The folders that are shown: addresses of files in them, and reading without leaving them. No torch here.

An address is the path of a file relative to the folder, with forward slashes, as it stands in the addresses of pages.
Files of a further folder begin with ``@1``, ``@2`` and so on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

FURTHER = re.compile(r"@([1-9][0-9]*)")
MAX_TEXT_BYTES = 16 << 20
"""Larger text files are not read whole; they are offered as downloads."""


class NotShownError(Exception):
    """Nothing that may be shown has this address."""


@dataclass(frozen=True)
class Folders:
    """The folders whose files may be shown.

    Attributes:
        main: the folder whose runs and datasets are listed.
        further: folders whose files are shown where a record of ``main`` names them, such as videos of a dataset.
    """

    main: Path
    further: tuple[Path, ...] = ()
    counts: dict[str, int] = field(default_factory=lambda: {"files": 0, "folders": 0})
    """Files and folders that were opened since the start."""

    @classmethod
    def of(cls, main: Path, further: tuple[Path, ...] = ()) -> Folders:
        """The folders by their real paths, without links."""
        return cls(_real(main), tuple(map(_real, further)))

    def path_of(self, address: str) -> Path:
        """The real path of what has this address.

        Raises:
            NotShownError: it does not exist, is hidden, or lies outside of the folder, be it by a link.
        """
        root, name = self._split(address)
        parts = PurePosixPath(name).parts
        if "\0" in name or name.startswith("/") or any(part.startswith(".") for part in parts):
            raise NotShownError(address)
        try:
            path = _real(root / name)
            if not path.is_relative_to(root) or not path.exists():
                raise NotShownError(address)
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # a name that no file system has, a circle of links
            raise NotShownError(address) from error
        return path

    def _split(self, address: str) -> tuple[Path, str]:
        first, _, rest = address.partition("/")
        match = FURTHER.fullmatch(first)
        if match is None:
            return self.main, address
        if int(match[1]) > len(self.further):
            raise NotShownError(address)
        return self.further[int(match[1]) - 1], rest

    def address_of(self, path: Path) -> str | None:
        """The address of a path; None if it lies in none of the folders."""
        normal = Path(os.path.normpath(path))
        for root, prefix in self._prefixes():
            for one in (normal, _real(normal)):
                if one.is_relative_to(root):
                    return prefix + one.relative_to(root).as_posix()
        return None

    def is_shown(self, address: str) -> bool:
        """True if something that may be shown has this address."""
        try:
            self.path_of(address)
        except NotShownError:
            return False
        return True

    def _prefixes(self) -> Iterator[tuple[Path, str]]:
        yield self.main, ""
        for number, folder in enumerate(self.further, start=1):
            yield folder, f"@{number}/"

    # --- reading -----------------------------------------------------------------------------

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder, without hidden names and links; empty if it cannot be read."""
        self.counts["folders"] += 1
        try:
            with os.scandir(folder) as found:
                return [one for one in found if one.name[0] != "." and not one.is_symlink()]
        except OSError:
            return []

    def subfolders(self, folder: Path) -> list[Path]:
        """Folders in a folder, by name; links are left out."""
        return sorted(Path(one.path) for one in self.entries(folder) if one.is_dir())

    def text(self, path: Path) -> str | None:
        """A text file; None if it is absent, a link, larger than `MAX_TEXT_BYTES`, or cannot be read."""
        self.counts["files"] += 1
        try:
            if path.is_symlink() or path.stat().st_size > MAX_TEXT_BYTES:
                return None
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def json_object(self, path: Path) -> dict[str, Any]:
        """The object in a JSON file; empty if the file is absent or damaged."""
        try:
            value = json.loads(self.text(path) or "{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
