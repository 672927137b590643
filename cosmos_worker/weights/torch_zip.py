"""Zip files of torch.save and torch.jit.save: their records, checked before anything of them is mapped.

PyTorch maps records by their offsets and looks neither at compression nor at checksums, so that a compressed or
truncated record becomes weights of other numbers. No torch here.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import (
    describe_pointer,
    is_pointer,
    recognise_file,
)

UNREADABLE_FILE = "cannot be read as a file of torch tensors"
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LOCAL_MAGIC = b"PK\x03\x04"
METHODS = {8: "deflate", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd"}
UNREADABLE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, ValueError, struct.error, EOFError, IndexError,
    OverflowError,
)  # fmt: skip
"""Exceptions of zipfile for damaged files."""
PIECE_BYTES = 1 << 22
REWRITE = (
    "python -c \"import torch; f = '{path}'; torch.save(torch.load(f, map_location='cpu', "
    'weights_only=True), f)"'
)
"""Reads a file of torch.save whole, into memory, and writes it in the form that is read here."""


@dataclass(frozen=True)
class Record:
    """One record of a zip file, stored as it is."""

    name: str
    """Without the name of the archive, such as ``data/0``."""
    start: int
    """Position of its first byte in the file."""
    size: int
    crc: int


def read_records(
    path: Path,
    remedy: str,
    start: int = 0,
    length: int | None = None,
    left_out: tuple[str, ...] = (),
) -> Mapping[str, Record]:
    """The records of a zip file by name; they are stored, whole, inside of the file, and apart from each other.

    Args:
        path: the file.
        remedy: ends the messages, such as ``fetch the model again``.
        start: position in the file at which the zip file begins.
        length: bytes of the zip file; None = to the end.
        left_out: folders of records that are neither checked nor returned, such as ``code/``.

    Raises:
        CheckpointError: no such file, or not such a zip file.
    """
    try:
        with _open_part(path, start, length) as stream:
            return _check_records(path, stream, start, left_out)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {remedy}") from None
    except _DamagedError as error:
        raise CheckpointError(f"{path}: {UNREADABLE_FILE} ({error}); {remedy}") from None
    except (*UNREADABLE, OSError) as error:
        if is_pointer(path):
            raise CheckpointError(describe_pointer(path)) from None
        kind = _kind(path)
        if kind is not None and kind.startswith("a pickle"):
            raise CheckpointError(
                f"{path}: {kind}, which cannot be mapped; write it again: {REWRITE.format(path=path)}"
            ) from None
        reason = f"it is {kind}" if kind else " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: {UNREADABLE_FILE} ({reason}); {remedy}") from None


class _DamagedError(Exception):
    """A fault in a zip file that can be opened."""


def _kind(path: Path) -> str | None:
    """Kind of a file that is no zip file; None if it is one or nothing that is known."""
    try:
        kind = recognise_file(path)
    except OSError:
        return None
    return None if kind is not None and "torch.save" in kind and "pickle" not in kind else kind


class _Part(io.RawIOBase):
    """A part of a file that is read like a file of its own."""

    def __init__(self, stream: BinaryIO, start: int, length: int) -> None:
        self._stream, self._start, self._length, self._at = stream, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError("a position before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # of RawIOBase
        size = max(0, min(len(buffer), self._length - self._at))
        self._stream.seek(self._start + self._at)
        content = self._stream.read(size)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


@contextmanager
def _open_part(path: Path, start: int, length: int | None) -> Iterator[BinaryIO]:
    with path.open("rb") as stream:
        if start == 0 and length is None:
            yield stream
            return
        size = path.stat().st_size - start if length is None else length
        if start < 0 or size < 0 or start + size > path.stat().st_size:
            raise _DamagedError(f"its bytes {start} to {start + size} are not there")
        yield cast(BinaryIO, io.BufferedReader(_Part(stream, start, size)))


def _check_records(
    path: Path, stream: BinaryIO, start: int, left_out: tuple[str, ...]
) -> dict[str, Record]:
    with zipfile.ZipFile(stream) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        end = archive.start_dir
    found: dict[str, Record] = {}
    for entry in entries:
        name = entry.filename.partition("/")[2] or entry.filename
        if name.startswith(left_out):
            continue
        _check_entry(path, entry)
        offset = _data_offset(stream, entry)
        if offset + entry.file_size > end:
            raise _DamagedError(
                f"record {entry.filename!r} does not end before the list of records"
            )
        if name in found:
            raise _DamagedError(f"two records are called {name!r}")
        found[name] = Record(name, start + offset, entry.file_size, entry.CRC)
    _check_apart(found)
    return found


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED:
        method = METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        raise CheckpointError(
            f"{path}: record {entry.filename!r} is compressed ({method}), so that it cannot be mapped; write the file "
            f"again: {REWRITE.format(path=path)}"
        )
    if entry.flag_bits & 0x1:
        raise _DamagedError(f"record {entry.filename!r} is encrypted")
    if entry.compress_size != entry.file_size:
        raise _DamagedError(f"record {entry.filename!r} has two sizes")


def _data_offset(stream: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Position of the first byte of a record, after its own header, which must agree with the list of records."""
    stream.seek(entry.header_offset)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = (
        LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    )
    name = stream.read(name_length)
    encoding = "utf-8" if flags & 0x800 else "cp437"
    deferred = bool(flags & 0x8)  # sizes and checksum follow the data
    sizes_agree = {packed, size} <= {entry.file_size, 0xFFFFFFFF} or (
        deferred and not (packed or size)
    )
    if (
        magic != LOCAL_MAGIC
        or method != entry.compress_type
        or name.decode(encoding, "replace") != entry.orig_filename
        or not sizes_agree
        or (crc != entry.CRC and not (deferred and crc == 0))
    ):
        raise _DamagedError(
            f"the header of record {entry.filename!r} differs from the list of records"
        )
    return int(entry.header_offset + LOCAL_HEADER.size + name_length + extra_length)


def _check_apart(records: Mapping[str, Record]) -> None:
    last = None
    for record in sorted(records.values(), key=lambda one: (one.start, one.size)):
        if last is not None and record.start < last.start + last.size:
            raise _DamagedError(f"records {last.name!r} and {record.name!r} overlap")
        last = record


def has_checksums(records: Mapping[str, Record]) -> bool:
    """True if a file has checksums; PyTorch leaves them out after set_crc32_options(False)."""
    return any(record.crc for record in records.values())


def check_crc(path: Path, record: Record, remedy: str) -> None:
    """Read a record and compare its checksum.

    Raises:
        CheckpointError: it differs.
    """
    crc, left = 0, record.size
    with path.open("rb") as stream:
        stream.seek(record.start)
        while left > 0 and (piece := stream.read(min(PIECE_BYTES, left))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
    if left or crc != record.crc:
        raise CheckpointError(
            f"{path}: {UNREADABLE_FILE} (record {record.name!r} is damaged: its checksum is {crc:08x} instead of "
            f"{record.crc:08x}); {remedy}"
        )


def check_zip(path: Path, remedy: str) -> None:
    """Check the structure of a zip file and the checksums of all records; programs of TorchScript may be compressed.

    Raises:
        CheckpointError: no such file, or a damaged one.
    """
    if _is_program(path):
        return check_program(path, remedy)
    records = read_records(path, remedy)
    if has_checksums(records):
        for record in records.values():
            check_crc(path, record, remedy)
    return None


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (*UNREADABLE, OSError):
        return False


def check_program(path: Path, remedy: str) -> None:
    """Check a TorchScript file by reading all of it: PyTorch does not map it, so its records may be compressed.

    Raises:
        CheckpointError: damaged, or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (*UNREADABLE, OSError, zlib.error) as error:
        wrong = " ".join(str(error).split())[:200]
    if wrong is not None:
        raise CheckpointError(
            f"{path}: not a TorchScript file, or a damaged one ({wrong}); {remedy}"
        )
