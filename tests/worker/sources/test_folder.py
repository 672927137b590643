"""Folders of fetched files, known by the record of their source."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cosmos_worker.config.source import S3Source, Source, UrlSource
from cosmos_worker.errors import DataError
from cosmos_worker.sources.folder import (
    is_fetched,
    locate_dataset,
)
from cosmos_worker.storage.volumes import (
    Volumes,
    write_json,
)


def record(folder: Path, source: Source) -> None:
    write_json(folder / "fetched.json", source.model_dump(mode="json", exclude_none=True))


def test_folder_of_another_address_is_told_without_its_signature(tmp_path: Path):
    held = Source(url=UrlSource(url="https://me:hunter2@a.example/x.tar?signature=secret"))
    wanted = Source(url=UrlSource(url="https://a.example/y.tar?signature=secret"))
    record(tmp_path, held)

    assert is_fetched(held, tmp_path)
    with pytest.raises(
        DataError,
        match=r"already holds .*https://\.\.\.@a\.example/x\.tar\?\.\.\.'.*, not .*/y\.tar",
    ) as told:
        is_fetched(wanted, tmp_path)
    assert not any(word in str(told.value) for word in ("secret", "hunter2"))


def test_record_of_a_bucket(tmp_path: Path):
    source = Source(s3=S3Source(uri="s3://lab/cubes"))
    record(tmp_path, source)

    assert is_fetched(source, tmp_path)
    with pytest.raises(DataError, match=r"already holds .*s3://lab/cubes.*, not .*s3://lab/other"):
        is_fetched(Source(s3=S3Source(uri="s3://lab/other")), tmp_path)


def test_what_was_fetched_earlier_is_told_with_its_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    source = Source(s3=S3Source(uri="s3://lab/cubes"))
    record(tmp_path, source)
    os.utime(tmp_path / "fetched.json", (1_700_000_000, 1_700_000_000))

    with caplog.at_level(logging.INFO):
        assert locate_dataset(source, tmp_path, Volumes({})) == tmp_path

    assert f"already fetched at=2023-11-14T22:13:20Z folder={tmp_path} (what has" in caplog.text
