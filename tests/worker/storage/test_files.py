from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.files import take_lock


def refuse_locks(patch: pytest.MonkeyPatch, code: int) -> None:
    """Stands for a volume that is mounted without locks."""

    def flock(handle: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    patch.setattr(fcntl, "flock", flock)


def test_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with path.open("a") as second:
        with path.open("a") as first:
            assert take_lock(first.fileno(), path)
            assert not take_lock(second.fileno(), path)
        assert take_lock(second.fileno(), path)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (errno.ENOSYS, "Function not implemented"),
        (errno.ENOTSUP, "Operation not supported"),
        (errno.ENOLCK, "No locks available"),
    ],
)
def test_volume_without_locks_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, answer: str
) -> None:
    refuse_locks(monkeypatch, code)

    with (
        (tmp_path / ".lock").open("a") as stream,
        pytest.raises(ConfigError, match=rf"\.lock: got '{answer}' .* Lustre with -o flock, NFS"),
    ):
        take_lock(stream.fileno(), tmp_path / ".lock")


def test_other_failures_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EIO)

    with (tmp_path / ".lock").open("a") as stream, pytest.raises(OSError, match="Input/output"):
        take_lock(stream.fileno(), tmp_path / ".lock")
