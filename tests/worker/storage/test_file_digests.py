"""Recorded digests: a changed file is refused; one with only a new modification time is hashed once."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from support.fetched_weights import fetch
from support.training import SMALL_NET, write_model

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage import file_digests
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.weights.load import load_model


def test_file_that_was_replaced_after_it_was_fetched_is_refused(tmp_path: Path) -> None:
    folder = fetch(write_model(tmp_path / "source.pt"), tmp_path / "Tiny")
    assert load_model(folder, SMALL_NET)

    other = write_model(tmp_path / "other.pt", seed=1)
    (folder / "model.pt").write_bytes(other.read_bytes())

    with pytest.raises(CheckpointError, match=r"not the file that fetched-model\.json records"):
        load_model(folder, SMALL_NET)


def test_one_changed_byte_is_seen_whatever_the_time_of_the_file(tmp_path: Path) -> None:
    folder = fetch(write_model(tmp_path / "source.pt"), tmp_path / "Tiny")
    path = folder / "model.pt"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(CheckpointError, match=r"not the file that fetched-model\.json records"):
        load_model(folder, SMALL_NET)


def test_copied_folder_is_the_same_model(tmp_path: Path) -> None:
    folder = fetch(write_model(tmp_path / "source.pt"), tmp_path / "Tiny")
    os.utime(folder / "model.pt", ns=(1, 1))

    assert load_model(folder, SMALL_NET)


def test_touched_file_is_hashed_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fetch(write_model(tmp_path / "source.pt"), tmp_path / "Tiny")
    os.utime(folder / "model.pt", ns=(1, 1))

    with caplog.at_level(logging.INFO, logger="cosmos_worker.storage.file_digests"):
        assert check_recorded(folder / "model.pt")
        assert "hashing file=" in caplog.text
        caplog.clear()
        assert check_recorded(folder / "model.pt")
    assert not caplog.text


def test_touched_file_in_a_folder_that_is_only_read_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(write_model(tmp_path / "source.pt"), tmp_path / "Tiny")
    os.utime(folder / "model.pt", ns=(1, 1))
    before = (folder / "fetched-model.json").read_text()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(file_digests, "write_json", refuse)  # root may write anywhere

    assert check_recorded(folder / "model.pt")
    assert (folder / "fetched-model.json").read_text() == before
