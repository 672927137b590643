"""Digests of what fetch-model fetches: shown so that they can be pinned, and compared where a job pins them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.stages import fetch_model
from cosmos_worker.stages.run_stage import run_stage
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.storage.volumes import FILTER_FILE, Volumes


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "blocklist/custom").mkdir(parents=True)
    (folder / "blocklist/exact_match").mkdir(parents=True)
    (folder / "video_content_safety_filter").mkdir()
    for name in ("blocklist/custom/a", "blocklist/exact_match/b", FILTER_FILE):
        (folder / name).write_text(name)
    return folder


def make_config(source: Path, tmp_path: Path, sha256: str | None = None) -> FetchModelConfig:
    artifact = {"kind": "guardrails", "name": "Guards", "source": {"path": str(source)},
                "target_uri": str(tmp_path / "models" / "Guards")}  # fmt: skip
    if sha256 is not None:
        artifact["sha256"] = sha256
    config = {"key": "k", "target_uri": str(tmp_path / "models"), "artifacts": [artifact]}
    return FetchModelConfig.model_validate(config)


def test_digest_is_that_of_sha256sum(source: Path, tmp_path: Path) -> None:
    command = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(
        ["bash", "-c", command], cwd=source, capture_output=True, text=True, check=True
    ).stdout

    result = fetch_model.run(make_config(source, tmp_path), Volumes())

    assert result["artifacts"][0]["sha256"] == printed.split()[0]


def test_pinned_files_are_taken_and_others_are_refused(source: Path, tmp_path: Path) -> None:
    pin = fetch_model.run(make_config(source, tmp_path), Volumes())["artifacts"][0]["sha256"]
    assert fetch_model.run(make_config(source, tmp_path, pin), Volumes())

    (source / "blocklist/custom/a").write_text("other words")
    other = tmp_path / "other"
    with pytest.raises(CheckpointError, match=f"the job asks for {pin}; correct sha256"):
        fetch_model.run(make_config(source, other, pin), Volumes())


def test_digests_are_told_also_when_everything_is_there_already(
    source: Path, tmp_path: Path
) -> None:
    config = make_config(source, tmp_path)
    first = run_stage("fetch-model", config, Volumes())
    again = run_stage("fetch-model", config, Volumes())

    digest = (first.result or {})["artifacts"][0]["sha256"]
    assert f"sha256: guardrails {digest}" in first.message
    assert again.message == f"fetch-model was already done; sha256: guardrails {digest}"


def test_files_of_every_kind_are_known_again(source: Path, tmp_path: Path) -> None:
    fetch_model.run(make_config(source, tmp_path), Volumes())
    path = tmp_path / "models/Guards/video_content_safety_filter/safety_filter.pt"
    assert check_recorded(path)

    path.write_text("another filter")
    with pytest.raises(CheckpointError, match=r"not the file that fetched-guardrails\.json"):
        check_recorded(path)
