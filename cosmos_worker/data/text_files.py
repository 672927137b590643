"""Read text files that people and other programs wrote, in one form for captions, lists and annotations.

The same words are the same caption in every file: with a byte order mark or without, with the line ends of
Windows or Linux, with accents as one character (NFC) or as two (NFD, the form of file names on macOS). No heavy
imports.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import reprlib
import stat
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from cosmos_worker.config.captions import TextError

ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # begins as UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
"""Byte order mark, codec that removes it, and the encoding's name; without a mark a file is UTF-8."""
MAX_BYTES = 16 << 20
"""Largest annotation or list that is read; those of public datasets have at most some 100 kB a clip."""
ERRORS_OF_A_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM,
    errno.ENXIO, errno.EINVAL, errno.EILSEQ,
)  # fmt: skip
"""Errors that are of one file or name; all others, such as EIO, are of its volume, and a later attempt may succeed."""
FILE_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class FileError(TextError):
    """A file that cannot be read: absent, not allowed, too large, or no regular file."""


def decode_text(content: bytes) -> str:
    """Text of a file's bytes: UTF-8 with or without byte order mark, UTF-16 or UTF-32 with one; lines end with LF.

    Raises:
        TextError: another encoding, with the position of the first bad byte; or a NUL character.
    """
    found = ((codec, name) for mark, codec, name in ENCODINGS if content.startswith(mark))
    codec, name = next(found, ("utf-8", "UTF-8"))
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        # error.object is what the codec was given, without the mark that utf-8-sig has removed before
        position = error.start + len(content) - len(error.object)
        raise TextError(
            f"not {name}: byte 0x{content[position]:02x} at position {position}"
        ) from None
    if "\0" in text:
        position = text.index("\0")
        raise TextError(
            f"a NUL character at position {position}, as in UTF-16 without a byte order mark"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Content of a regular file; a link is followed.

    Raises:
        FileError: no such file, a folder, pipe or device, too large, or not allowed.
        OSError: the volume does not give its content.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{kind_of_file(status.st_mode)}, not a file")
        if status.st_size > max_bytes:
            raise FileError(f"{status.st_size} bytes, at most {max_bytes} are read")
        return path.read_bytes()
    except OSError as error:
        raise_if_volume(error)
        raise FileError(f"cannot be read: {os.strerror(error.errno or 0)}") from None
    except TextError:
        raise
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise FileError(f"cannot be a file's name: {error}") from None


def nfc(text: str) -> str:
    """Text with each accented letter as one character: the form in which names are compared."""
    return unicodedata.normalize("NFC", text)


def as_on_disk(path: Path) -> Path:
    """A path as its file is called on disk: letters with accents may have another form there (NFC or NFD).

    Args:
        path: as somebody wrote it; may be of nothing that exists.

    Returns:
        The path with each part in the form in which it exists; the path itself if there is no such file, or two.

    Raises:
        OSError: the volume does not tell.
    """
    if str(path).isascii():
        return path
    found = Path(path.anchor)
    try:
        for part in path.parts[len(found.parts) :]:
            if not os.path.lexists(found / part):
                matches = [one.name for one in found.iterdir() if nfc(one.name) == nfc(part)]
                if len(matches) != 1:
                    return path
                part = matches[0]
            found = found / part
    except OSError as error:
        raise_if_volume(error)
        return path
    except ValueError:  # a NUL or a lone surrogate
        return path
    return found


def raise_if_volume(error: OSError) -> None:
    """Raise an error again that is not of the file, but of its volume."""
    if error.errno not in ERRORS_OF_A_FILE:
        raise error


def kind_of_file(mode: int) -> str:
    """Name of a kind of file that is not a regular file, such as ``a folder``."""
    return next((words for is_kind, words in FILE_KINDS if is_kind(mode)), "something else")


def read_text_file(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Text of a file as :func:`decode_text` gives it.

    Raises:
        FileError: as ``read_bytes``.
        TextError: as ``decode_text``.
        OSError: the volume does not give its content.
    """
    return decode_text(read_bytes(path, max_bytes))


def parse_json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a JSON value.

    Raises:
        TextError: not JSON, a name given twice in one object, too deeply nested, or a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except TextError:
        raise
    except RecursionError:
        raise TextError("JSON that is too deeply nested") from None
    except json.JSONDecodeError as error:
        raise TextError(f"not JSON: {error}") from None
    except ValueError:  # Python's limit for the digits of a whole number
        raise TextError("a number of too many digits") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name in values if counts[name] > 1)
        raise TextError(f"{brief(repeated)} is given twice in one object")
    return values


class _Brief(reprlib.Repr):
    """Values of any depth and size in at most some 80 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 60, 60, 40


def brief(value: object) -> str:
    """A value of a document for a message: one line, at most 80 characters, however deep or large it is."""
    text = _Brief().repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def printable(text: str) -> str:
    """Text that a log line, a table or a UTF-8 file can hold: control characters and lone surrogates are escaped."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii")
        for mark in text
    )
