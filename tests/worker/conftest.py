"""An S3 store for the tests of several folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s3_store import Store


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Store]:
    """The running server; tests take ``store``."""
    from s3_store import serve_s3

    with serve_s3() as running:
        yield running


@pytest.fixture
def store(s3_server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an empty bucket, credentials for it, and no long pauses."""
    from s3_store import KEYS, set_credentials, share_descriptions

    from cosmos_worker.data import s3_bucket

    set_credentials(monkeypatch, tmp_path, KEYS)
    share_descriptions(monkeypatch)
    monkeypatch.setattr(s3_bucket, "WAIT_S", 0.001)
    monkeypatch.setattr(s3_bucket, "MAX_ATTEMPTS", 2)
    s3_server.reset()
    return s3_server
