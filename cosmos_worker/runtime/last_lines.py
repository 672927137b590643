"""The last lines that this process has logged, for its termination message: they outlive its pod and its log."""

from __future__ import annotations

import logging
from collections import deque

NUM_LINES = 3
"""Lines that are kept."""
MAX_LINE = 200
"""Characters of a line that are kept."""


class LastLines(logging.Handler):
    """Keeps the last lines that were logged, as they stand in the log."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self._lines: deque[str] = deque(maxlen=NUM_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the last line of a record."""
        self._lines.append(self.format(record).splitlines()[-1].lstrip()[:MAX_LINE])

    def lines(self) -> list[str]:
        """The lines, the oldest first."""
        return list(self._lines)


def install() -> None:
    """Keep the lines that the log's handler writes, in its form; earlier lines are forgotten."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, LastLines):
            root.removeHandler(handler)
    form = next((one.formatter for one in root.handlers if one.formatter is not None), None)
    root.addHandler(LastLines(form or logging.Formatter()))


def last_lines() -> list[str]:
    """The last lines that were logged; none if nothing keeps them."""
    kept = (one for one in logging.getLogger().handlers if isinstance(one, LastLines))
    return next((one.lines() for one in kept), [])
