"""An S3 store and a small disk for the tests of several folders."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.s3_store import S3Store


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Store]:
    """The running server of the session; tests use ``store``."""
    from support.s3_store import serve_s3

    with serve_s3() as running:
        yield running


@pytest.fixture
def store(s3_server: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store with an empty bucket, credentials for it, and no long pauses."""
    from support.s3_store import KEYS, set_credentials, share_descriptions

    from cosmos_worker.sources import s3_bucket

    set_credentials(monkeypatch, tmp_path, KEYS)
    share_descriptions(monkeypatch)
    monkeypatch.setattr(s3_bucket, "WAIT_S", 0.001)
    monkeypatch.setattr(s3_bucket, "MAX_ATTEMPTS", 2)
    s3_server.reset()
    return s3_server


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB; mounting it needs root.

    Not below pytest's folder, which could not be removed if a test were killed before the end.
    """
    folder = tempfile.mkdtemp(prefix="cosmos-small-disk-")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield Path(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)
    Path(folder).rmdir()
