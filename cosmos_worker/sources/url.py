"""A file behind a URL as one stream, which resumes at the next byte when a connection breaks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from http.client import HTTPException, InvalidURL
from typing import Any, Self

from cosmos_worker.config.addresses import shown_address
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.failures import one_line
from cosmos_worker.sources.download_progress import TransferRate
from cosmos_worker.storage.web_page import (
    PEEK_BYTES,
    describe_page,
    page_error,
)

logger = logging.getLogger(__name__)

SCHEMES = ("http", "https", "file")
TIMEOUT_S = 60.0
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
PARTIAL_CONTENT = 206
MAX_FAILURES = 6
"""Connections in a row that bring nothing before the stream gives up."""
WAIT_S = 1.0
"""Pause before the first new connection; twice as long before each further one."""
MAX_SAID = 200
"""Characters of a server's own words that a message keeps."""


class Download:
    """A stream that keeps the digest and the number of the bytes that went through, and logs progress.

    Use as a context manager.
    """

    def __init__(self, url: str) -> None:
        """Connect.

        Raises:
            DataError: another scheme, the server says that there is no such file, or it gives a web page or nothing.
            RetryableError: no connection, or an error of the server that may pass.
        """
        self._url, self._shown = url, shown_address(url)
        self._response = _open(url, {})
        headers = self._response.headers
        length = (headers.get("Content-Length") or "").strip()
        self._size_bytes = int(length) if length.isdecimal() else None
        etag = headers.get("ETag", "W/")
        self._version = headers.get("Last-Modified") if etag.startswith("W/") else etag
        self._digest = hashlib.sha256()
        self._rate = TransferRate(f"url={self._shown}", self._size_bytes)
        self._failures = 0
        self.num_bytes = 0
        self._ahead = b""
        self._ahead = self.read(PEEK_BYTES)
        self._refuse_page()

    def _refuse_page(self) -> None:
        """Refuse a web page and an empty file.

        Raises:
            DataError: with the page's title.
        """
        beginning = self._ahead
        encoding = self._response.headers.get("Content-Encoding") or ""
        if "gzip" in encoding:  # without being asked for, as proxies do
            with contextlib.suppress(zlib.error):
                beginning = zlib.decompressobj(wbits=31).decompress(beginning, PEEK_BYTES)
        page = describe_page(beginning)
        if page is None and self._ahead:
            return
        self._response.close()
        if page is None:
            raise DataError(f"{self._shown}: the server sends an empty file; check the address")
        reached = shown_address(self._response.geturl())
        raise page_error(
            self._shown, page if reached == self._shown else f"{page} (from {reached})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rate.close()
        self._response.close()

    def read(self, size: int = -1) -> bytes:
        """Read from the file; reconnects where the connection breaks or ends early.

        Raises:
            RetryableError: that does not help.
        """
        if self._ahead:
            end = len(self._ahead) if size < 0 else size
            piece, self._ahead = self._ahead[:end], self._ahead[end:]
            return piece
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
        self._rate.report(self.num_bytes)

    def _reconnect(self, problem: str) -> None:
        """Connect again at the next byte.

        Raises:
            RetryableError: no connection after several attempts, or the server only starts from the beginning.
        """
        self._response.close()
        while True:
            self._failures += 1
            if self._size_bytes is None or self._failures > MAX_FAILURES:
                raise RetryableError(f"{self._shown}: {problem}; run again")
            wait_s = WAIT_S * 2 ** (self._failures - 1)
            logger.warning(
                "%s: %s; going on in %.0f s at byte %d",
                self._shown,
                problem,
                wait_s,
                self.num_bytes,
            )
            time.sleep(wait_s)
            headers = {"Range": f"bytes={self.num_bytes}-"}
            if self._version is not None:
                headers["If-Range"] = self._version
            try:
                self._response = _open(self._url, headers)
                break
            except RetryableError as error:
                problem = str(error).removeprefix(f"{self._shown}: ")
        found = self._response.headers.get("Content-Range")
        expected = f"bytes {self.num_bytes}-{self._size_bytes - 1}/{self._size_bytes}"
        if self._response.status != PARTIAL_CONTENT or found != expected:
            self._response.close()
            raise RetryableError(
                f"{self._shown}: {problem}, and the server does not go on at this byte of this file; run again"
            )

    def finish(self) -> str:
        """Read the rest of the stream, such as padding after an archive, and return the SHA-256 of all of it."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()


def _take_credentials(url: str) -> tuple[str, str]:
    """An address without user and password, and these as the value of an Authorization header, empty without them."""
    parts = urllib.parse.urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = userinfo.partition(":")
    plain = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
    return parts._replace(
        netloc=host
    ).geturl(), f"Basic {base64.b64encode(plain.encode()).decode()}"


def _open(url: str, headers: dict[str, str]) -> Any:  # noqa: ANN401 - of http or of a file
    """Send one request; errors as :class:`Download` says."""
    scheme, shown = urllib.parse.urlsplit(url).scheme, shown_address(url)
    if scheme not in SCHEMES:
        raise DataError(f"{shown}: scheme {scheme!r}; use one of {', '.join(SCHEMES)}")
    try:
        address, credentials = _take_credentials(url)
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 - scheme checked above
        if credentials:  # not for the host that this one may redirect to
            request.add_unredirected_header("Authorization", credentials)
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        kind = RetryableError if error.code in RETRYABLE_STATUS else DataError
        message = f"{shown}: {_refusal(error)}; check the address"
        error.close()
        raise kind(message) from None
    except urllib.error.URLError as error:
        raise _connection_error(shown, scheme, error.reason) from None
    except (ValueError, InvalidURL) as error:
        raise DataError(
            f"{shown}: no valid address ({error}); write spaces and letters other than those of ASCII as %XX"
        ) from None
    except (OSError, HTTPException) as error:
        raise RetryableError(f"{shown}: {error}; check the network and run again") from None


def _connection_error(shown: str, scheme: str, reason: object) -> DataError | RetryableError:
    """The error for a server that could not be asked, or for a file that cannot be opened."""
    if isinstance(reason, IsADirectoryError):
        return DataError(f"{shown}: is a folder; give it as path, or pack it")
    if scheme == "file" or isinstance(reason, FileNotFoundError):
        return DataError(f"{shown}: {reason}; check the address")
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(
            f"{shown}: the server's certificate is not trusted: {reason.verify_message}; check the address, or name "
            "the certificates of its authority in SSL_CERT_FILE"
        )
    return RetryableError(f"{shown}: {reason}; check the network and run again")


def _refusal(error: urllib.error.HTTPError) -> str:
    """The answer of a server that does not give the file: status, reason, and its own words or its page's title."""
    reason = one_line(str(error.reason))
    if "infinite loop" in reason:
        return f"the server answers {error.code} again and again, a loop of redirects"
    text = f"the server answers {error.code} {reason}".rstrip()
    try:
        body = error.read(PEEK_BYTES)
    except (OSError, HTTPException):  # the status tells enough
        return text
    page = describe_page(body)
    if page is not None:
        return f"{text} with {page}"
    said = body.decode("utf-8", errors="replace")
    match = re.search(r"<Message>(.*?)</Message>", said, re.DOTALL)  # of a store's signed addresses
    said = " ".join((match[1] if match else said).split())
    return f"{text}: {said[:MAX_SAID]}" if said.isprintable() and said else text
