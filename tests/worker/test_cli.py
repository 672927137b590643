"""The worker's command line: markers, exit codes, termination messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cosmos_worker import termination
from cosmos_worker.cli import main
from cosmos_worker.config import STAGE_CONFIGS


def write_document(tmp_path: Path, **values: object) -> Path:
    document = {"key": "k1", "target_uri": str(tmp_path / "out"), "artifacts": [], **values}
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def message_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(termination.VARIABLE, str(tmp_path / "termination.json"))
    return tmp_path / "termination.json"


def artifact(tmp_path: Path, source: Path) -> dict[str, object]:
    return {
        "kind": "model",
        "name": "m",
        "source": {"path": str(source)},
        "target_uri": str(tmp_path / "models"),
    }


def test_finished_stage_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.pt").write_bytes(b"weights")
    document = write_document(tmp_path, artifacts=[artifact(tmp_path, source)])

    assert main(["fetch-model", "--config", str(document)]) == 0
    marker = tmp_path / "out" / "complete-k1.json"
    written = marker.stat().st_mtime_ns
    assert main(["fetch-model", "--config", str(document)]) == 0

    assert marker.stat().st_mtime_ns == written
    assert "already done" in capsys.readouterr().err
    assert (tmp_path / "models" / "model.pt").read_bytes() == b"weights"


def test_user_error_is_one_line_and_exit_code_2(
    tmp_path: Path, message_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = write_document(tmp_path, artifacts=[artifact(tmp_path, tmp_path / "absent")])

    assert main(["fetch-model", "--config", str(document)]) == 2

    assert "absent" in capsys.readouterr().err
    message = json.loads(message_file.read_text())
    assert message["reason"] in {"DataError", "ConfigError", "CheckpointError"}
    assert not (tmp_path / "out" / "complete-k1.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key: k", "target_uri: Field required"),
        ("[]", "expected a mapping, got list"),
        ("a: [", "not YAML"),
        (
            "key: k\ntarget_uri: t\nartifacts: []\nsurprise: 1",
            "surprise: Extra inputs are not permitted",
        ),
    ],
)
def test_bad_document_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text(text)

    assert main(["fetch-model", "--config", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_override_reaches_the_document(tmp_path: Path) -> None:
    document = write_document(tmp_path)

    assert main(["fetch-model", "--config", str(document), "--set", "key=k2"]) == 0
    assert (tmp_path / "out" / "complete-k2.json").exists()


def test_termination_message_fits_4_kib(message_file: Path) -> None:
    termination.write("DataError", "x" * 100_000, step=3)

    message = json.loads(message_file.read_text())
    assert len(message_file.read_text()) <= 4096
    assert message["reason"] == "DataError"
    assert message["step"] == 3


@pytest.mark.parametrize("stage", STAGE_CONFIGS)
def test_every_stage_has_help(stage: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cosmos_worker.cli", stage, "--help"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert "--config" in result.stdout
