"""Extract tar archives, from a URL as a stream or from a file, without trusting their content.

Only plain files and folders of an archive are written, with our own permissions; links, devices and names
that leave the folder are refused with the member's name.
"""

from __future__ import annotations

import logging
import shutil
import tarfile
import zlib
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import Protocol

from cosmos_worker.config.addresses import shown_address
from cosmos_worker.config.source import UrlSource
from cosmos_worker.errors import DataError
from cosmos_worker.runtime.failures import one_line
from cosmos_worker.sources.url import Download
from cosmos_worker.storage.file_kinds import GIT_LFS

logger = logging.getLogger(__name__)

ZIP = b"PK\x03\x04"
UNDECODABLE = "\ufffd"
PEEK_BYTES = 1024
"""Bytes by which something else than an archive is recognised."""
MAX_SAID = 200
"""Characters of a text instead of an archive that a message quotes."""


class Readable(Protocol):
    """A stream that an archive is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        ...


class _WithFirstBytes:
    """A stream that keeps its first bytes."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.first = b""

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self.first += content[: PEEK_BYTES - len(self.first)]
        return content


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
        DataError: not a tar, or a member that is refused.
    """
    num_files = 0
    seen: set[PurePosixPath] = set()
    with_first_bytes = _WithFirstBytes(stream)
    try:
        # typeshed wants more of a stream than the read() that mode "r|" uses
        with tarfile.open(fileobj=with_first_bytes, mode="r|*") as archive:  # type: ignore[call-overload]
            for member in archive:
                path = check_member(member, seen, name)
                if member.isdir():
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None  # a plain file has content
                with (folder / path).open("xb") as output:
                    shutil.copyfileobj(content, output, 1 << 20)
                num_files += 1
    except (tarfile.TarError, EOFError, zlib.error, LZMAError) as error:
        if not seen and (other := _describe_other(with_first_bytes.first)) is not None:
            raise DataError(f"{name}: {other}") from None
        raise DataError(
            f"{name}: damaged or no tar archive: {error}; give a .tar, .tar.gz, .tar.bz2 or .tar.xz"
        ) from None
    return num_files


def _describe_other(first: bytes) -> str | None:
    """Words for something else than an archive, by its first bytes, with advice; None if it is not known."""
    if first.startswith(GIT_LFS):
        return (
            "a Git LFS pointer, which stands for the file in a repository; give the address from which the "
            "repository serves the file itself"
        )
    if first.startswith(ZIP):
        return "a zip archive; pack the files as .tar, .tar.gz, .tar.bz2 or .tar.xz"
    said = one_line(first.decode("utf-8", errors="replace")).removesuffix(UNDECODABLE)
    if not said or UNDECODABLE in said or not said.isprintable():
        return None
    kind = "JSON" if said[0] in "{[" else "text"
    return (
        f"got {kind} instead of an archive: {said[:MAX_SAID]!r}; correct the address or its credentials: it must give "
        "a .tar, .tar.gz, .tar.bz2 or .tar.xz"
    )


def check_member(member: tarfile.TarInfo, seen: set[PurePosixPath], name: str) -> PurePosixPath:
    """The member's path inside the folder, if it may be written; adds files to ``seen``.

    Raises:
        DataError: a link, device, absolute path, path with '..' or a second file of the same name.
    """
    path = PurePosixPath(member.name)
    problem = ""
    if member.issym() or member.islnk():
        problem = f"is a link to {member.linkname!r}"
    elif not member.isreg() and not member.isdir():
        problem = "is a device or pipe"
    elif path.is_absolute():
        problem = "has an absolute path"
    elif ".." in path.parts:
        problem = "leaves the folder"
    elif member.isreg() and (path in seen or not path.parts):
        problem = "comes twice" if path.parts else "has no name"
    if problem:
        raise DataError(
            f"{name}: member {member.name!r} {problem}; pack plain files with relative paths only"
        )
    if member.isreg():
        seen.add(path)
    return path
