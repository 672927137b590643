"""Every file and folder that a process of Python changes, written down as it happens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES: dict[str, tuple[int, ...]] = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.mkfifo": (0,), "os.mknod": (0,),
    "sqlite3.connect": (0,),
}  # fmt: skip
"""Event of ``sys.addaudithook`` → positions of the paths that it changes among its arguments."""
FOLDER_DESCRIPTORS = {"os.mkdir": 2, "os.remove": 1, "os.rmdir": 1}
"""Event → position of the descriptor of the folder that a path is relative to."""


def trace_writes(log: Path) -> None:
    """Append every path that this process changes from now on to a file, one a line, with links resolved.

    What libraries write without Python's own functions is not seen. The hook cannot be taken away again: call this in a
    process of its own.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.dont_write_bytecode = True

    def note(path: Any, folder: Any = -1) -> None:
        if isinstance(path, int) or path is None:
            return
        found = Path(os.fsdecode(path))
        if isinstance(folder, int) and folder >= 0 and not found.is_absolute():
            found = Path(f"/proc/self/fd/{folder}").readlink() / found
        real = found.parent.resolve() / found.name
        os.write(handle, f"{real}\n".encode(errors="backslashreplace"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                note(path)
        elif event in CHANGES:
            position = FOLDER_DESCRIPTORS.get(event)
            for number in CHANGES[event]:
                note(arguments[number], -1 if position is None else arguments[position])

    sys.addaudithook(hook)


def read_trace(log: Path) -> set[Path]:
    """The paths that were changed."""
    return {Path(line) for line in log.read_text().splitlines()} if log.exists() else set()
