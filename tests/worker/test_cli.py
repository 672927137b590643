"""The worker's command line: markers, exit codes, termination messages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from support.training import SMALL_NET, write_model

from cosmos_worker.cli import main
from cosmos_worker.runtime import outcome
from cosmos_worker.weights.load import read_weight_file


def write_document(tmp_path: Path, **values: object) -> Path:
    document = {"key": "k1", "target_uri": str(tmp_path / "out"), "artifacts": [], **values}
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def message_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(outcome.TERMINATION_VARIABLE, str(tmp_path / "termination.json"))
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
    torch.save({"net.x": torch.zeros(1)}, source / "model.pt")
    document = write_document(tmp_path, artifacts=[artifact(tmp_path, source)])

    assert main(["fetch-model", "--config", str(document)]) == 0
    marker = tmp_path / "out" / "complete-k1.json"
    written = marker.stat().st_mtime_ns
    assert main(["fetch-model", "--config", str(document)]) == 0

    assert marker.stat().st_mtime_ns == written
    assert "already done" in capsys.readouterr().err
    assert (tmp_path / "models" / "model.pt").read_bytes() == (source / "model.pt").read_bytes()


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
    outcome.write_termination_message("DataError", "x" * 100_000, step=3)

    message = json.loads(message_file.read_text())
    assert len(message_file.read_text()) <= 4096
    assert message["reason"] == "DataError"
    assert message["step"] == 3


def test_message_is_one_line_of_strict_json(message_file: Path) -> None:
    outcome.write_termination_message(
        "ConfigError", "a: wrong\n  b: wrong\n", result={"loss": float("nan")}
    )

    message = json.loads(message_file.read_text(), parse_constant=pytest.fail)
    assert message["message"] == "a: wrong; b: wrong"
    assert message["result"] == {"loss": None}


def test_large_results_are_dropped_whole(message_file: Path) -> None:
    result = {"steps": 3, "files": ["x" * 50] * 100, "table": [["y" * 99] * 60], "run": "r"}

    outcome.write_termination_message("Succeeded", "train done", result=result)

    message = json.loads(message_file.read_text())
    assert message["result"] == {"steps": 3, "run": "r", "omitted": ["table", "files"]}
    assert message["message"] == "train done"


def test_message_that_nobody_can_take_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(outcome.TERMINATION_VARIABLE, str(tmp_path / "absent" / "log"))

    assert main(["fetch-model", "--config", str(write_document(tmp_path))]) == 0


def test_success_is_told_with_its_result_also_when_it_was_done_before(
    tmp_path: Path, message_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_NAME", "node-a")
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"net.x": torch.zeros(1)}, source / "model.pt")
    document = write_document(tmp_path, artifacts=[artifact(tmp_path, source)])

    assert main(["fetch-model", "--config", str(document)]) == 0
    first = json.loads(message_file.read_text())
    assert main(["fetch-model", "--config", str(document)]) == 0
    second = json.loads(message_file.read_text())

    assert first["reason"] == second["reason"] == "Succeeded"
    assert first["node"] == "node-a"
    assert first["message"].startswith("fetch-model done in ")
    assert second["message"].startswith("fetch-model was already done; sha256: model ")
    assert first["result"] == second["result"]
    assert first["result"]["artifacts"][0]["name"] == "m"


def test_fetch_follows_its_own_advice_when_a_file_was_replaced_or_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"net.x": torch.zeros(1)}, source / "model.pt")
    described = artifact(tmp_path, source)
    document = write_document(tmp_path, artifacts=[described])
    model = Path(str(described["target_uri"])) / "model.pt"
    assert main(["fetch-model", "--config", str(document)]) == 0
    model.unlink()
    torch.save({"net.x": torch.ones(1)}, model)

    assert main(["fetch-model", "--config", str(document)]) == 2
    assert "remove it and run the stage again that made it" in capsys.readouterr().err
    model.unlink()
    assert main(["fetch-model", "--config", str(document)]) == 0
    assert torch.equal(read_weight_file(model)["net.x"], torch.zeros(1))
    assert main(["fetch-model", "--config", str(document)]) == 0
    assert "fetch-model already done" in capsys.readouterr().err


def test_publish_follows_its_own_advice_when_its_model_was_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "run/checkpoints/iter_000000010_ema_model.pt")
    target = tmp_path / "out"
    fields = {"run_uri": str(tmp_path / "run"), "job": "j", "name": "out"}
    document = {"key": "k", "target_uri": str(target), "net": SMALL_NET.model_dump(), **fields}
    (tmp_path / "publish.yaml").write_text(yaml.safe_dump(document))
    command = ["publish", "--config", str(tmp_path / "publish.yaml")]
    assert main(command) == 0
    published = (target / "model.pt").read_bytes()
    write_model(target / "model.pt", seed=1)

    assert main(command) == 2
    assert "remove it and run the stage again that made it" in capsys.readouterr().err
    (target / "model.pt").unlink()
    assert main(command) == 0
    assert (target / "model.pt").read_bytes() == published


STAGE_THAT_IS_STOPPED = """
import concurrent.futures, sys, time, types
from cosmos_worker import cli
from cosmos_worker.runtime import signals
from cosmos_worker.storage.volumes import atomic_write
from pathlib import Path

def run(config, volumes):
    with atomic_write(Path(config.target_uri) / "file") as stream:
        stream.write(b"half")
        sys.stderr.write("ready\\n")
        try:
            if sys.argv[2] == "busy":
                signals.LATE_S = 0.5
                with concurrent.futures.ThreadPoolExecutor(1) as pool:
                    pool.submit(time.sleep, 60).result()
            time.sleep(60)
        except Exception:  # as libraries do
            pass

stage = types.ModuleType("cosmos_worker.stages.fetch_model")
stage.run = run
sys.modules[stage.__name__] = stage
sys.exit(cli.main(["fetch-model", "--config", sys.argv[1]]))
"""


@pytest.mark.parametrize("mode", ["asleep", "busy"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_ends_a_stage_at_once(
    tmp_path: Path, message_file: Path, mode: str, number: signal.Signals
) -> None:
    document = write_document(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE_THAT_IS_STOPPED, str(document), mode],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(number)
    _, log = process.communicate()

    assert time.monotonic() - started < 5
    assert process.returncode == 75, log
    message = json.loads(message_file.read_text())
    assert message["reason"] == "Stopped"
    assert "fetch-model was stopped by" in message["message"]
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert not [name for name in left if not name.endswith(".tmp")]
    assert mode == "busy" or not left
