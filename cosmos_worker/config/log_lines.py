"""Texts of anybody as log lines and messages show them: no forged lines, terminal escapes, endless lines or secrets.

This is done once, where a record becomes a line and where an error becomes an outcome, not where a text is quoted.
No torch here.
"""

from __future__ import annotations

import logging

from cosmos_worker.config.addresses import redacted

MAX_LINE_BYTES = 4000
"""Bytes of a log line in UTF-8; container runtimes cut longer ones in two."""
MAX_MESSAGE = 3500
"""Characters of the message of an outcome."""
INDENT = "    "
"""Before each line of a record after its first, so that none can be taken for another record."""


def escaped(text: str) -> str:
    """A text without control characters: blanks of any kind become one space each, the others their escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return " " if char.isspace() else char.encode("unicode_escape").decode("ascii")


def escaped_lines(text: str) -> str:
    """A text of several lines, each :func:`escaped` and cut."""
    return "\n".join(cut(escaped(line)) for line in text.splitlines())


def cut(line: str, max_bytes: int = MAX_LINE_BYTES) -> str:
    """The beginning of a line that is too long, with the number of characters that it had."""
    content = line.encode("utf-8", errors="backslashreplace")
    if len(content) <= max_bytes:
        return line
    end = f"... ({len(line)} characters)"
    return content[: max_bytes - len(end)].decode("utf-8", errors="ignore") + end


class LineFormatter(logging.Formatter):
    """Writes a record as one line, or as several of which only the first begins like a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        first, *others = super().format(record).split("\n")
        more = [line for part in others for line in part.splitlines() or [""]]
        lines = [first, *(f"{INDENT}{line}" for line in more)]
        return "\n".join(cut(escaped(redacted(line))) for line in lines)
