"""A tar archive of any compression as a stream of members that has been read whole, with limits on what it may claim.

Python's ``tarfile`` takes a damaged header for the end of an archive, does not check the sum at the end of a compressed
stream, and reads headers of any size into memory. Here an archive counts only with its end, its sums, and headers of a
sensible size.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol, Self

GZIP, BZIP2, XZ, LZMA = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00"
PEEK_BYTES = 1024
"""First bytes of a stream that are kept, by which something else than an archive is recognised."""
PIECE_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 20
"""Largest header with a long name or with attributes."""
MAX_DECODER_BYTES = 256 << 20
"""Memory of an xz decoder; those of xz -9 take 65 MiB."""
MAX_RATIO = 200
"""Bytes that may come out of one byte; videos come to 1, annotations to 50."""
FREE_BYTES = 256 << 20
"""Bytes that may come out of any archive, whatever its size."""
END_OF_ARCHIVE: type[tarfile.TarError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
"""Says that a header is the block of zeros that ends an archive; typeshed does not have it."""
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Types of headers whose content tarfile reads into memory."""


WRONG_HEADER = (ValueError, LookupError, OverflowError)
"""Errors that tarfile raises for wrong numbers and texts in headers, beside its own."""


class Readable(Protocol):
    """A stream that an archive is read from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        ...


class DamagedArchive(tarfile.ReadError):
    """An archive that is not whole, or that claims more than any honest one."""


class _Member(tarfile.TarInfo):
    """The header of a member; a damaged one is an error, not the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header.

        Raises:
            DamagedArchive: it is cut off, its sum is wrong, or it is too large.
            END_OF_ARCHIVE: the block of zeros that ends an archive.
        """
        try:
            found = super().frombuf(buf, encoding, errors)
        except END_OF_ARCHIVE:
            raise
        except tarfile.HeaderError as error:
            said = (
                "ends before the end of the archive" if not buf else f"a header is wrong ({error})"
            )
            raise DamagedArchive(said) from None
        if found.size < 0 or (found.type in HEADERS and found.size > MAX_HEADER_BYTES):
            raise DamagedArchive(f"a header of {found.size} bytes")
        return found


class Counted:
    """A stream that counts its bytes and keeps the first ones."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.first = b""
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = self._stream.read(size)
        self.first += content[: PEEK_BYTES - len(self.first)]
        self.num_bytes += len(content)
        return content


class _Rewound:
    """A stream whose first bytes, which have been looked at, come again."""

    def __init__(self, first: bytes, stream: Readable) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1) -> bytes:
        if not self._first:
            return self._stream.read(size)
        end = len(self._first) if size < 0 else size
        piece, self._first = self._first[:end], self._first[end:]
        return piece


class _XzReader:
    """Decompresses xz and lzma with bounded memory."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._ahead = stream, b""
        self._decoder = self._new_decoder()

    def _new_decoder(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=MAX_DECODER_BYTES)

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._decoder.eof:  # another stream may follow, after zeros
                self._ahead = (self._decoder.unused_data or self._stream.read(PIECE_BYTES)).lstrip(
                    b"\0"
                )
                if not self._ahead:
                    return b""
                self._decoder = self._new_decoder()
            elif self._decoder.needs_input and not self._ahead:
                self._ahead = self._stream.read(PIECE_BYTES)
                if not self._ahead:
                    raise EOFError("compressed data ends before its end marker")
            content, self._ahead = self._decoder.decompress(self._ahead, size), b""
            if content:
                return content


class _Decompressed:
    """The bytes of an archive, whatever its compression: with the sums at its end checked, and a bounded ratio."""

    def __init__(self, source: Counted) -> None:
        self._source, self._num_bytes = source, 0
        first = source.read(max(map(len, (GZIP, BZIP2, XZ, LZMA))))
        while first and len(first) < len(XZ) and (more := source.read(len(XZ) - len(first))):
            first += more
        stream: Any = _Rewound(
            first, source
        )  # typeshed wants more of a stream than the read() that is used
        self._content: Readable = stream
        if first.startswith(GZIP):
            self._content = gzip.GzipFile(fileobj=stream, mode="rb")
        elif first.startswith(BZIP2):
            self._content = bz2.BZ2File(stream)
        elif first.startswith((XZ, LZMA)):
            self._content = _XzReader(stream)

    def read(self, size: int = -1) -> bytes:
        try:
            content = self._content.read(size)
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise DamagedArchive(str(error)) from None
        except OSError as error:
            if error.errno is not None:  # of the disk
                raise
            raise DamagedArchive(str(error)) from None
        self._num_bytes += len(content)
        if self._num_bytes > FREE_BYTES + MAX_RATIO * self._source.num_bytes:
            raise DamagedArchive(
                f"{self._source.num_bytes} bytes become more than {self._num_bytes}, over {MAX_RATIO} times as many; "
                "if that is right, pack the files without compression"
            )
        return content


class TarStream:
    """The members of an archive, in its order; use as a context manager.

    Args:
        source: the archive's bytes.

    Raises:
        tarfile.TarError: it is damaged, or no tar; also by its methods.
    """

    def __init__(self, source: Counted) -> None:
        content = _Decompressed(source)
        try:
            # typeshed wants more of a stream than the read() that mode "r|" uses
            self._archive = tarfile.open(fileobj=content, mode="r|", tarinfo=_Member)  # type: ignore[call-overload] # noqa: SIM115
        except WRONG_HEADER as error:
            raise DamagedArchive(f"a header is wrong ({error})") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def members(self) -> Iterator[tarfile.TarInfo]:
        """All members; the archive has been read to its very end once they have been gone through.

        Raises:
            tarfile.TarError: it is damaged, ends before its end, or something follows it.
        """
        while (member := self._next()) is not None:
            self._archive.members.clear()  # they would be kept
            yield member
        stream = self._archive.fileobj
        assert stream is not None
        while rest := stream.read(1 << 20):
            if rest.strip(b"\0"):
                raise DamagedArchive(
                    "something follows the end of the archive, such as a second one"
                )

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self._archive.next()
        except WRONG_HEADER as error:
            raise DamagedArchive(f"a header is wrong ({error})") from None

    def content(self, member: tarfile.TarInfo) -> Readable:
        """The content of the member that :meth:`members` has just given, a plain file."""
        content = self._archive.extractfile(member)
        assert content is not None
        return content
