"""The program of the pod that gives files away: it waits, lists, and reads. Its text runs there.

It uses nothing but Python's own library, since the image may have another version of this project, or none.
The pod ends by itself when nobody has asked for anything for IDLE_S seconds, such as after the client was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time

IDLE_S = 300.0
TICK_S = 5.0
PIECE_BYTES = 1 << 20


def touch(heartbeat: str) -> None:
    """Say that somebody is there."""
    with open(heartbeat, "a"):  # noqa: PTH123 - the program stands alone
        os.utime(heartbeat)


def serve(heartbeat: str, idle_s: float) -> None:
    """Wait until nobody has asked for anything for so long."""
    touch(heartbeat)
    while time.time() - os.stat(heartbeat).st_mtime < idle_s:  # noqa: PTH116
        time.sleep(min(TICK_S, idle_s / 4))


def is_file(path: str) -> bool:
    """True for a regular file; links are not followed."""
    return stat.S_ISREG(os.lstat(path).st_mode)


def list_files(root: str, names: list[str]) -> None:
    """Write a JSON line for each regular file at or below the named paths: path from the root, size in bytes."""
    for name in names:
        top = os.path.join(root, name)  # noqa: PTH118
        if not os.path.lexists(top):
            write({"missing": name})
            continue
        if is_file(top):
            write({"path": name, "size": os.lstat(top).st_size})
            continue
        for folder, folders, files in os.walk(top):
            folders.sort()
            for file in sorted(files):
                path = os.path.join(folder, file)  # noqa: PTH118
                if is_file(path):
                    write({"path": os.path.relpath(path, root), "size": os.lstat(path).st_size})


def write(entry: dict[str, object]) -> None:
    """Write a JSON line."""
    sys.stdout.write(json.dumps(entry) + "\n")


def read(path: str, offset: int, heartbeat: str) -> None:
    """Write the bytes of a file from an offset on, and at the end, to standard error, size and SHA-256 of all of it."""
    digest, position, touched = hashlib.sha256(), 0, 0.0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            if time.time() - touched > TICK_S:
                touched = time.time()
                touch(heartbeat)
            digest.update(piece)
            begin = min(max(0, offset - position), len(piece))
            position += len(piece)
            if begin < len(piece):
                sys.stdout.buffer.write(piece[begin:])
    sys.stdout.buffer.flush()
    sys.stderr.write(json.dumps({"size": position, "sha256": digest.hexdigest()}))


def main(arguments: list[str]) -> None:
    """Run one command: serve HEARTBEAT IDLE_S, list HEARTBEAT ROOT NAME ..., read HEARTBEAT PATH OFFSET."""
    command, heartbeat, *rest = arguments
    if command == "serve":
        serve(heartbeat, float(rest[0]))
        return
    touch(heartbeat)
    if command == "list":
        list_files(rest[0], rest[1:])
    else:
        read(rest[0], int(rest[1]), heartbeat)


if __name__ == "__main__":
    main(sys.argv[1:])
