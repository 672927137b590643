"""Tar archives behind a URL: streamed through the digest into a folder, never trusted.

Nothing of an archive but plain files and folders is written, with our own permissions; links, devices and names
that leave the folder are refused with the member's name.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from cosmos_worker.config import UrlSource
from cosmos_worker.errors import DataError, RetryableError

logger = logging.getLogger(__name__)

SCHEMES = ("http", "https", "file")
TIMEOUT_S = 60.0
LOG_INTERVAL_S = 10.0
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class CountingReader:
    """A stream that keeps the digest and the number of the bytes that went through, and logs progress."""

    def __init__(self, stream: IO[bytes], url: str, size_bytes: int | None) -> None:
        self._stream = stream
        self._url = url
        self._size_bytes = size_bytes
        self._digest = hashlib.sha256()
        self._last_log = time.monotonic()
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read as from the stream.

        Raises:
            RetryableError: the connection breaks or ends early.
        """
        try:
            piece = self._stream.read(size)
        except (OSError, HTTPException) as error:
            raise RetryableError(f"{self._url}: connection lost: {error}; run again") from None
        self._digest.update(piece)
        self.num_bytes += len(piece)
        if not piece and self._size_bytes is not None and self.num_bytes < self._size_bytes:
            raise RetryableError(
                f"{self._url}: connection ended after {self.num_bytes} of {self._size_bytes} bytes; run again"
            )
        if time.monotonic() - self._last_log >= LOG_INTERVAL_S:
            self._last_log = time.monotonic()
            total = self._size_bytes or 0
            logger.info("fetching url=%s mib=%d/%d", self._url, self.num_bytes >> 20, total >> 20)
        return piece

    def finish(self) -> str:
        """Read what is left after the archive's end and return the SHA-256 of everything."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


@contextmanager
def open_url(url: str) -> Iterator[CountingReader]:
    """Open a URL for reading.

    Raises:
        DataError: another scheme, or the server says that there is no such file.
        RetryableError: no connection, or an error of the server that may pass.
    """
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise DataError(f"{url}: scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_S)  # noqa: S310 - scheme checked above
    except urllib.error.HTTPError as error:
        kind = RetryableError if error.code in RETRYABLE_STATUS else DataError
        message = f"{url}: the server answers {error.code} {error.reason}; check the address"
        error.close()
        raise kind(message) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or scheme == "file":
            raise DataError(f"{url}: {error.reason}; check the address") from None
        raise RetryableError(f"{url}: {error.reason}; check the network and run again") from None
    with response:
        length = response.headers.get("Content-Length")
        yield CountingReader(response, url, int(length) if length else None)


def extract_url(source: UrlSource, folder: Path) -> None:
    """Stream an archive into an empty folder. The caller throws the folder away if this raises.

    Raises:
        DataError: not a tar, a member that is refused, or another digest than expected.
        RetryableError: the network fails.
    """
    with open_url(source.url) as stream:
        logger.info("fetching url=%s", source.url)
        num_files = extract_tar(stream, folder, source.url)
        digest = stream.finish()
    if source.sha256 is not None and digest != source.sha256.lower():
        raise DataError(
            f"{source.url}: sha256 is {digest}, expected {source.sha256}; correct sha256 or the address"
        )
    logger.info("fetched url=%s files=%d sha256=%s", source.url, num_files, digest)


def extract_tar(stream: CountingReader, folder: Path, name: str) -> int:
    """Write the plain files of a tar stream of any compression below ``folder``; returns their number.

    Raises:
        DataError: not a tar, or a member that is refused.
    """
    num_files = 0
    seen: set[PurePosixPath] = set()
    try:
        # typeshed wants more of a stream than the read() that mode "r|" uses
        # typeshed knows the mode only for files that can also seek; a stream is read once
        with tarfile.open(fileobj=stream, mode="r|*") as archive:  # type: ignore[call-overload]
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
        raise DataError(
            f"{name}: damaged or no tar archive: {error}; give a .tar, .tar.gz, .tar.bz2 or .tar.xz"
        ) from None
    return num_files


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
