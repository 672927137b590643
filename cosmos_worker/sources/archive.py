"""Extract tar archives, from a URL as a stream or from a file, without trusting their content.

Only plain files and folders of an archive are written, with our own permissions; links, devices, sparse files and names
that leave the folder are refused with the member's name, and so is an archive that is not whole (``tar_stream.py``).
"""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import unicodedata
from pathlib import Path, PurePosixPath

from cosmos_worker.config.addresses import shown_address
from cosmos_worker.config.source import UrlSource
from cosmos_worker.config.values import shortened
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources.tar_stream import Counted, Readable, TarStream
from cosmos_worker.sources.url import Download
from cosmos_worker.storage.file_kinds import GIT_LFS

logger = logging.getLogger(__name__)

ZIP = b"PK\x03\x04"
UNDECODABLE = "\ufffd"
MAX_MEMBERS = 2_000_000
MAX_FILE_BYTES = 1 << 40
MAX_NAME_BYTES = 255
"""Longest name of one file that file systems have."""
MAX_PATH_BYTES = 1024
MAX_SAID = 200
"""Characters of a text instead of an archive that a message quotes."""


def extract_url(source: UrlSource, folder: Path) -> None:
    """Stream an archive into an empty folder. The caller throws the folder away if this raises.

    Raises:
        DataError: not a tar, a member that is refused, or another digest than expected.
        RetryableError: the network fails.
    """
    shown = shown_address(source.url)
    with Download(source.url) as stream:
        logger.info("fetching url=%s", shown)
        num_files = extract_tar(stream, folder, shown)
        digest = stream.finish()
    if source.sha256 is not None and digest != source.sha256.lower():
        raise DataError(
            f"{shown}: sha256 is {digest}, expected {source.sha256}; correct sha256 or the address"
        )
    logger.info("fetched url=%s files=%d sha256=%s", shown, num_files, digest)


def extract_file(path: Path, folder: Path, name: str) -> None:
    """Write the plain files of a tar archive on disk into an empty folder. The caller throws it away if this raises.

    Args:
        path: the archive.
        folder: receives the files.
        name: address of the archive, for messages.

    Raises:
        DataError: not a tar, or a member that is refused.
    """
    with path.open("rb") as stream:
        num_files = extract_tar(stream, folder, name)
    logger.info("extracted %s files=%d", name, num_files)


def extract_tar(stream: Readable, folder: Path, name: str) -> int:
    """Write the plain files of a tar stream of any compression below ``folder``; returns their number.

    Raises:
        DataError: not a whole tar, a member that is refused, or more than an archive may have.
        RetryableError: the disk has too little room.
    """
    names = MemberNames(name)
    counted = Counted(stream)
    try:
        with TarStream(counted) as archive:
            for member in archive.members():
                path = names.check(member)
                if member.isdir():
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                _check_room(member, (folder / path).parent, name)
                with (folder / path).open("xb") as output:
                    shutil.copyfileobj(archive.content(member), output, 1 << 20)
    except tarfile.TarError as error:
        if not names.files and (other := _describe_other(counted.first)) is not None:
            raise DataError(f"{name}: {other}") from None
        raise DataError(
            f"{name}: damaged or no tar archive: {error}; give a .tar, .tar.gz, .tar.bz2 or .tar.xz"
        ) from None
    return len(names.files)


def _check_room(member: tarfile.TarInfo, folder: Path, name: str) -> None:
    """Refuse a file that is larger than what the disk has left, before it fills it for everybody.

    Raises:
        RetryableError: with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if member.size > free:
        raise RetryableError(
            f"{name}: member {shown_name(member.name)} has {member.size} bytes, and {folder} has {free} left; make "
            "room and run again"
        )


def _describe_other(first: bytes) -> str | None:
    """Words for something else than an archive, by its first bytes, with advice; None if it is not known."""
    if first.startswith(GIT_LFS):
        return (
            "a Git LFS pointer, which stands for the file in a repository; give the address from which the "
            "repository serves the file itself"
        )
    if first.startswith(ZIP):
        return "a zip archive; pack the files as .tar, .tar.gz, .tar.bz2 or .tar.xz"
    said = " ".join(first.decode("utf-8", errors="replace").split()).removesuffix(UNDECODABLE)
    if not said or UNDECODABLE in said or not said.isprintable():
        return None
    kind = "JSON" if said[0] in "{[" else "text"
    return (
        f"got {kind} instead of an archive: {said[:MAX_SAID]!r}; correct the address or its credentials: it must give "
        "a .tar, .tar.gz, .tar.bz2 or .tar.xz"
    )


class MemberNames:
    """The names in an archive: each is checked, and a file has one of its own.

    Args:
        archive: address of the archive, for messages.

    Attributes:
        files: names of the files so far.
    """

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._num_members = 0
        self._folders: set[str] = set()
        self.files: set[str] = set()

    def check(self, member: tarfile.TarInfo) -> PurePosixPath:
        """The member's path inside the folder, if it may be written; it is taken from then on.

        Raises:
            DataError: a link, device, sparse file, a path that leaves the folder, a second file of the same name, or
                more members than an archive may have.
        """
        self._num_members += 1
        if self._num_members > MAX_MEMBERS:
            raise DataError(
                f"{self._archive}: has more than {MAX_MEMBERS} members; pack a folder of fewer files"
            )
        path = PurePosixPath(member.name.replace("\0", "?"))
        if (
            problem := _wrong_kind(member)
            or _wrong_path(member.name, path)
            or self._clash(member, path)
        ):
            raise DataError(
                f"{self._archive}: member {shown_name(member.name)} {problem}; "
                "pack plain files with relative paths only"
            )
        own = [str(parent) for parent in path.parents][:-1]
        self._folders.update([str(path), *own] if member.isdir() else own)
        if member.isreg():
            self.files.add(str(path))
        return path

    def _clash(self, member: tarfile.TarInfo, path: PurePosixPath) -> str:
        """The reason why the path is not free; empty if it is."""
        if any(str(parent) in self.files for parent in path.parents):
            return "lies in a file"
        if member.isdir():
            return "is a folder and a file" if str(path) in self.files else ""
        if not path.parts:
            return "has no name"
        if str(path) in self.files:
            return "comes twice"
        return "is a file and a folder" if str(path) in self._folders else ""


def _wrong_kind(member: tarfile.TarInfo) -> str:
    """The reason why a member of this kind is refused; empty if it is plain."""
    if member.issym() or member.islnk():
        return f"is a link to {shown_name(member.linkname)}"
    if not member.isreg() and not member.isdir():
        return "is a device or pipe"
    if member.issparse():
        return "is a sparse file, whose size says nothing about the archive's"
    if not 0 <= member.size <= MAX_FILE_BYTES:
        return f"has {member.size} bytes (at most {MAX_FILE_BYTES})"
    return ""


def _wrong_path(name: str, path: PurePosixPath) -> str:
    """The reason why a path is refused; empty if it is plain."""
    if path.is_absolute():
        return "has an absolute path"
    if ".." in path.parts:
        return "leaves the folder"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "has a control character in its name"
    if len(os.fsencode(str(path))) > MAX_PATH_BYTES:
        return f"has a path of more than {MAX_PATH_BYTES} bytes"
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in path.parts):
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    return ""


def shown_name(name: str) -> str:
    """A member's name as messages quote it."""
    return repr(shortened(name))
