"""A file behind a URL as one stream, which goes on where a broken connection has left it."""

from __future__ import annotations

import hashlib
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from typing_extensions import Self

from cosmos_worker.data.pace import Pace
from cosmos_worker.errors import DataError, RetryableError

logger = logging.getLogger(__name__)

SCHEMES = ("http", "https", "file")
TIMEOUT_S = 60.0
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
PARTIAL_CONTENT = 206
MAX_FAILURES = 6
"""Connections in a row that bring nothing before the stream gives up."""
WAIT_S = 1.0
"""Pause before the first new connection; twice as long before each further one."""


class Download:
    """A stream that keeps the digest and the number of the bytes that went through, and logs progress.

    Use as a context manager.
    """

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            DataError: another scheme, or the server says that there is no such file.
            RetryableError: no connection, or an error of the server that may pass.
        """
        self._url = url
        self._response = _open(url, {})
        headers = self._response.headers
        length = headers.get("Content-Length")
        self._size_bytes = int(length) if length else None
        etag = headers.get("ETag", "W/")
        self._version = headers.get("Last-Modified") if etag.startswith("W/") else etag
        self._digest = hashlib.sha256()
        self._pace = Pace(self._size_bytes)
        self._failures = 0
        self.num_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._response.close()

    def read(self, size: int = -1) -> bytes:
        """Read as from the file; reconnects where the connection breaks or ends early.

        Raises:
            RetryableError: that does not help.
        """
        piece = b""
        while size and not piece:
            try:
                piece = self._response.read(size)
            except (OSError, HTTPException) as error:
                self._reconnect(f"connection lost: {error}")
                continue
            if not piece:
                if self._size_bytes is None or self.num_bytes >= self._size_bytes:
                    break
                self._reconnect(
                    f"connection ended after {self.num_bytes} of {self._size_bytes} bytes"
                )
        if piece:
            self._count(piece)
        return piece

    def _count(self, piece: bytes) -> None:
        self._failures = 0
        self._digest.update(piece)
        self.num_bytes += len(piece)
        if self._pace.is_due():
            logger.info("fetching url=%s %s", self._url, self._pace.describe(self.num_bytes))

    def _reconnect(self, problem: str) -> None:
        """Connect again at the next byte.

        Raises:
            RetryableError: no connection after several attempts, or the server only starts from the beginning.
        """
        self._response.close()
        while True:
            self._failures += 1
            if self._size_bytes is None or self._failures > MAX_FAILURES:
                raise RetryableError(f"{self._url}: {problem}; run again")
            wait_s = WAIT_S * 2 ** (self._failures - 1)
            logger.warning(
                "%s: %s; going on in %.0f s at byte %d", self._url, problem, wait_s, self.num_bytes
            )
            time.sleep(wait_s)
            headers = {"Range": f"bytes={self.num_bytes}-"}
            if self._version is not None:
                headers["If-Range"] = self._version
            try:
                self._response = _open(self._url, headers)
                break
            except RetryableError as error:
                problem = str(error).removeprefix(f"{self._url}: ")
        found = self._response.headers.get("Content-Range")
        expected = f"bytes {self.num_bytes}-{self._size_bytes - 1}/{self._size_bytes}"
        if self._response.status != PARTIAL_CONTENT or found != expected:
            self._response.close()
            raise RetryableError(
                f"{self._url}: {problem}, and the server does not go on at this byte of this file; run again"
            )

    def finish(self) -> str:
        """Read what is left after the archive's end and return the SHA-256 of everything."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def _open(url: str, headers: dict[str, str]) -> Any:  # noqa: ANN401 - of http or of a file
    """Send one request; errors as :class:`Download` says."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise DataError(f"{url}: scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - scheme checked above
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        kind = RetryableError if error.code in RETRYABLE_STATUS else DataError
        message = f"{url}: the server answers {error.code} {error.reason}; check the address"
        error.close()
        raise kind(message) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or scheme == "file":
            raise DataError(f"{url}: {error.reason}; check the address") from None
        raise RetryableError(f"{url}: {error.reason}; check the network and run again") from None
    except (OSError, HTTPException) as error:
        raise RetryableError(f"{url}: {error}; check the network and run again") from None
