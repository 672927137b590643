"""Training through torchrun: several processes, stop requests, exit codes. Real processes, gloo."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from training import run_path, small_experiment, train_config, write_model, write_training_inputs

from cosmos_worker.checkpoint.export import list_exports
from cosmos_worker.checkpoint.state import list_states
from cosmos_worker.launch import child_processes
from cosmos_worker.layout import Volumes, read_marker
from cosmos_worker.stages import train as train_stage

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def start(inputs: Path, target: Path, processes: int, **trainer: object) -> subprocess.Popen[str]:
    config = train_config(inputs, small_experiment(**trainer), target)
    document = target / "train.yaml"
    target.mkdir(exist_ok=True)
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cosmos_worker.cli", "train"),
            *("--config", str(document), "--nproc-per-node", str(processes)),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "COSMOS_TERMINATION_LOG": str(target / "termination.json"),
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the log until a line has the text."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"ended without {text!r}"


def descendants(pid: int) -> list[int]:
    children = list(child_processes(pid))
    return [*children, *(below for child in children for below in descendants(child))]


def weights(target: Path) -> dict[str, torch.Tensor]:
    return torch.load(list(list_exports(run_path(target), "ema").values())[-1], weights_only=True)


def test_two_processes_equal_one(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "one"), Volumes())

    process = start(inputs, tmp_path / "two", 2)
    _, log = process.communicate()

    assert process.returncode == 0, log
    assert "processes=2" in log
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(
            weights(tmp_path / "two")[key], value, atol=2e-6, rtol=1e-5, msg=key
        )
    one, two = (
        [
            json.loads(line)
            for line in (run_path(tmp_path / name) / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    )
    assert [line["loss"] for line in two if "loss" in line] == pytest.approx(
        [line["loss"] for line in one if "loss" in line], rel=1e-5
    )
    assert read_marker(tmp_path / "two", "k") is not None


def test_stop_request_saves_and_asks_to_be_continued(inputs: Path, tmp_path: Path) -> None:
    steps = 100_000
    process = start(inputs, tmp_path, 2, max_steps=steps, save_every_steps=steps, log_every_steps=1)
    wait_for(process, "step=3/")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate()

    assert process.returncode == 75, log
    saved = list_states(run_path(tmp_path))
    assert saved[-1][0] >= 3
    message = json.loads((tmp_path / "termination.json").read_text())
    assert message["reason"] == "StopRequested"
    assert "run the same command to continue" in message["message"]
    assert read_marker(tmp_path, "k") is None


def test_killed_process_continues_in_the_same_bits(inputs: Path, tmp_path: Path) -> None:
    options = {"max_steps": 60, "save_every_steps": 2, "keep_last": 2}
    whole = start(inputs, tmp_path / "whole", 2, **options)
    broken = start(inputs, tmp_path / "broken", 2, **options)
    wait_for(broken, "step=5/")
    for pid in descendants(broken.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    broken.communicate()
    whole.communicate()
    assert broken.returncode == 1  # torchrun lost its processes: not an orderly end
    assert whole.returncode == 0
    saved = list_states(run_path(tmp_path / "broken"))[-1][0]
    assert 4 <= saved < 60

    again = start(inputs, tmp_path / "broken", 2, **options)
    _, log = again.communicate()

    assert again.returncode == 0, log
    assert f"continued step={saved}" in log
    for key, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "broken")[key], value), key


def test_error_of_a_process_becomes_exit_code_and_message(tmp_path: Path) -> None:
    write_training_inputs(tmp_path, num_windows=3)
    write_model(tmp_path / "model.pt")

    process = start(tmp_path, tmp_path / "out", 2)
    _, log = process.communicate()

    assert process.returncode == 2, log
    message = json.loads((tmp_path / "out" / "termination.json").read_text())
    assert message["reason"] == "DataError"
    assert "3 training windows are fewer than one batch of 4" in message["message"]


def test_killed_launcher_takes_its_processes_along(inputs: Path, tmp_path: Path) -> None:
    process = start(inputs, tmp_path, 2, max_steps=100_000, save_every_steps=100_000)
    wait_for(process, "step=3/")
    process.kill()
    process.wait()

    deadline = time.monotonic() + 90
    with (run_path(tmp_path) / ".lock").open("a") as lock:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        else:
            pytest.fail("training processes outlived their launcher")
    process.stderr.close()
    assert list_states(run_path(tmp_path))[-1][0] >= 3
