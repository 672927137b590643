"""Find files of a dataset: all below a folder, or the one that a document names.

Entries that look like a clip and are none (a folder named x.mp4, a link that leads nowhere, a named pipe) come back as
:class:`BadClip`, other files as counts, so that the report mentions everything that is not used.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.text_files import (
    as_on_disk,
    kind_of_file,
    nfc,
    printable,
    raise_if_volume,
)
from cosmos_worker.errors import DataError
from cosmos_worker.storage.links import leads_outside

VIDEO_ENDINGS = frozenset(
    (
        ".mp4",
        ".m4v",
        ".mp4v",
        ".mov",
        ".qt",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".m2ts",
        ".mts",
        ".mpg",
    )
) | {".mpeg", ".m2v", ".mpv", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf"}
"""Endings of files that are taken for videos, in small letters."""
IGNORED_ENDINGS = frozenset((".pickle",))
"""Files that belong to clips: embeddings of the reference."""
LINK_OUTSIDE = "a link to something outside of the dataset's folder, which is not followed; copy it into the folder"
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4095
"""Longest name and path that Linux takes."""
MAX_KINDS = 20
"""Kinds of other files that are told apart."""
MAX_ID = 500
"""Characters of the longest clip id."""
UNUSABLE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no name may have: control characters, lone surrogates (a byte of a name on disk that is not
UTF-8 becomes one), line and paragraph separators."""


@dataclass(frozen=True)
class FoundFiles:
    """Files below a folder. Names are relative to the dataset's root, with forward slashes."""

    names: tuple[str, ...]
    """Regular files of the wanted endings, as they are called on disk, sorted."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Pattern such as videos/**/*.gif → number of other files."""
    bad: tuple[BadClip, ...] = ()
    """Entries with a wanted ending that cannot be used, and folders that cannot be listed."""


class _Walk:
    """A walk through a folder and all below it; a folder that several links lead to is entered once."""

    def __init__(self, root: Path, folder: str, endings: Collection[str]) -> None:
        self.root, self.folder, self.endings = root, folder, endings
        self.names: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.bad: list[BadClip] = []
        self._entered: set[tuple[int, int]] = set()
        self._pending = [folder]

    def run(self) -> FoundFiles:
        while self._pending:
            name = self._pending.pop()
            try:
                self._enter_folder(name)
            except OSError as error:
                raise_if_volume(error)
                value = f"cannot be listed: {os.strerror(error.errno or 0)}"
                self.bad.append(BadClip(name, "file_unreadable", value))
        bad = sorted(self.bad, key=lambda problem: problem.file)
        return FoundFiles(tuple(sorted(self.names)), dict(self.passed_over), tuple(bad))

    def _enter_folder(self, folder: str) -> None:
        status = (self.root / folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in self._entered:
            self.passed_over[f"{printable(folder)}/ (a link to a folder that is read already)"] = 1
            return
        self._entered.add(identity)
        with os.scandir(self.root / folder) as entries:
            below = sorted(entries, key=lambda entry: entry.name)
        inner = [name for entry in below for name in self._note_entry(entry, folder)]
        self._pending += reversed(inner)

    def _note_entry(self, entry: os.DirEntry[str], folder: str) -> Iterator[str]:
        """Note a file; yield the name of a folder that is to be entered."""
        if entry.name.startswith("."):
            return
        name, ending = f"{_prefix(folder)}{entry.name}", ending_of(entry.name)
        kind = _kind_of(entry)
        if entry.is_symlink() and kind in ("file", "folder") and leads_outside(self.root, name):
            self.bad.append(BadClip(name, "file_unreadable", LINK_OUTSIDE))
            return
        if ending not in self.endings:
            if kind == "folder":
                yield name
            elif ending not in IGNORED_ENDINGS:
                self.passed_over[f"{_prefix(self.folder)}**/*{_shown(ending)}"] += 1
        elif kind != "file":
            value = "a folder, not a file" if kind == "folder" else kind
            self.bad.append(BadClip(name, "file_unreadable", value))
        elif character := unusable_character(name):
            self.bad.append(BadClip(name, "name_unusable", f"its name has {character}"))
        else:
            self.names.append(name)


def most_frequent(passed_over: Mapping[str, int], folder: str) -> dict[str, int]:
    """The most frequent kinds of files by name, then all others as one."""
    counts = Counter(passed_over)
    kinds = dict(sorted(counts.most_common(MAX_KINDS)))
    others = counts.total() - sum(kinds.values())
    return {**kinds, f"further kinds in {printable(folder)}/": others} if others else kinds


def find_files(root: Path, folder: str, endings: Collection[str]) -> FoundFiles:
    """All files below ``root/folder``; hidden files and folders, such as those of macOS archives, do not count.

    Args:
        root: the dataset's root.
        folder: relative to it, "." = the root itself; if it does not exist nothing is found.
        endings: of the wanted files, in small letters; those on disk may have capitals.

    Raises:
        OSError: the volume does not give the names.
    """
    if not (root / folder).is_dir():
        return FoundFiles(())
    if leads_outside(root, folder):
        return FoundFiles((), bad=(BadClip(folder, "file_unreadable", LINK_OUTSIDE),))
    return _Walk(root, folder, endings).run()


def refuse_links(root: Path, names: Iterable[str]) -> None:
    """Refuse a dataset of which a list or a document is a link to something outside of its folder.

    Args:
        root: the dataset's root.
        names: files that are read, relative to it.

    Raises:
        DataError: one of them is.
        OSError: the volume does not tell.
    """
    for name in names:
        if leads_outside(root, name):
            raise DataError(f"{root / name}: is {LINK_OUTSIDE}")


def _prefix(folder: str) -> str:
    """Beginning of the names of files in a folder: its path and a slash, empty for the root."""
    return "" if folder == "." else f"{folder}/"


def ending_of(name: str) -> str:
    """Last ending of a file name in small letters, such as .mp4; empty if it has none."""
    return PurePosixPath(name).suffix.lower()


def _shown(ending: str) -> str:
    if not ending:
        return " (no ending)"
    return printable(ending) if len(ending) <= 12 else ".* (long endings)"


def _kind_of(entry: os.DirEntry[str]) -> str:
    """``file``, ``folder``, or words for anything else; links are followed."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return f"{kind_of_file(entry.stat().st_mode)}, not a file"
    except FileNotFoundError:
        return "a link to a file that does not exist" if entry.is_symlink() else "gone meanwhile"
    except OSError as error:
        raise_if_volume(error)
        return f"cannot be read: {os.strerror(error.errno or 0)}"


def unusable_character(text: str) -> str | None:
    """Words for the first character that no name may have; None if there is none."""
    if text.isprintable():
        return None
    wrong = (mark for mark in text if unicodedata.category(mark) in UNUSABLE_CATEGORIES)
    mark = next(wrong, None)
    if mark is None:
        return None
    is_lone = unicodedata.category(mark) == "Cs"
    return f"{mark!r}, {'a byte that is not UTF-8, or half of a character' if is_lone else 'a control character'}"


def check_id(text: str, name: str, where: str) -> str:
    """The id that a document gives a clip, in the form in which ids are compared.

    Args:
        text: the id.
        name: how messages call the document.
        where: how they call the place in it, such as episode_id.

    Raises:
        BadClip: too long, or a control character or lone surrogate in it.
    """
    if len(text) > MAX_ID:
        raise BadClip(
            name, "name_unusable", f"{where} has {len(text)} characters, at most {MAX_ID}"
        )
    if character := unusable_character(text):
        raise BadClip(name, "name_unusable", f"{where} has {character}")
    return nfc(text)


def check_path(text: str, name: str, where: str) -> str:
    """A path that a document names, relative to the dataset's root, with forward slashes.

    Args:
        text: the path.
        name: how messages call the document.
        where: how they call the place in it, such as videos[0].video_path.

    Raises:
        BadClip: not inside the dataset, or no file can have this name.
    """
    if character := unusable_character(text):
        raise BadClip(name, "name_unusable", f"{where} has {character}")
    path = PurePosixPath(text)
    if max(len(part.encode()) for part in ("", *path.parts)) > MAX_NAME_BYTES:
        raise BadClip(name, "name_unusable", f"{where} has a name of over {MAX_NAME_BYTES} bytes")
    if len(text.encode()) > MAX_PATH_BYTES:
        raise BadClip(name, "name_unusable", f"{where} is longer than {MAX_PATH_BYTES} bytes")
    if path.is_absolute() or ".." in path.parts:
        raise BadClip(name, "video_outside", f"{where} {text!r}")
    return path.as_posix()


def find_video(root: Path, path: str, name: str, where: str) -> str:
    """The name on disk of a video that a document names; accented letters may have another Unicode form there.

    Args:
        root: the dataset's root.
        path: as the document has it.
        name: how messages call the document.
        where: how they call the place in it, such as videos[0].video_path.

    Returns:
        Path relative to the root; that of the document if there is no such file.

    Raises:
        BadClip: a path as ``check_path`` refuses it, or of something that is no regular file.
        OSError: the volume does not tell.
    """
    checked = check_path(path, name, where)
    form = as_on_disk(root / checked).relative_to(root).as_posix()
    mode = _mode(root / form, name, where)
    if mode is not None and not stat.S_ISREG(mode):
        value = f"{where} {form!r} is {kind_of_file(mode)}, not a file"
        raise BadClip(name, "file_unreadable", value)
    if mode is not None and leads_outside(root, form):
        raise BadClip(name, "video_outside", f"{where} {form!r} is {LINK_OUTSIDE}")
    return form


def _mode(path: Path, name: str, where: str) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise_if_volume(error)
        value = f"{where} cannot be read: {os.strerror(error.errno or 0)}"
        raise BadClip(name, "file_unreadable", value) from None
