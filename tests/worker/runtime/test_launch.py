"""Training through torchrun: several processes, stop requests, exit codes. Real processes, gloo."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from support.runs import assert_same_bits, assert_same_but_for_rounding
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.runtime.launch import (
    child_processes,
    descendants,
)
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    Volumes,
    read_marker,
)
from cosmos_worker.train.checkpoint import list_states

RANK_PROGRAM = Path(__file__).parents[2] / "support" / "rank_program.py"
pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def start(
    inputs: Path,
    target: Path,
    processes: int,
    environment: Mapping[str, str] = MappingProxyType({}),
    **trainer: object,
) -> subprocess.Popen[str]:
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
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


LAUNCHER = """
import os, sys
from cosmos_worker.runtime import failures, launch, stage_process
stage_process.configure_logging(True)
try:
    code = launch.launch_program(sys.argv[2:], int(sys.argv[1]), os.environ)
except Exception as error:
    code = stage_process.report_end(failures.classify(error))
sys.exit(code)
"""


@dataclass(frozen=True)
class End:
    """The end of a launcher."""

    code: int
    message: dict[str, Any]
    log: str


def start_program(
    folder: Path, mode: str, processes: int = 2, **environment: str
) -> subprocess.Popen[str]:
    """Launch processes whose stage ends in a chosen way."""
    folder.mkdir(exist_ok=True)
    document = folder / "train.yaml"
    config = train_config(folder, small_experiment(), folder / "out")
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    program = [str(RANK_PROGRAM), str(document), mode]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(processes), *program],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NODE_NAME": "node-a",
            "COSMOS_TERMINATION_LOG": str(folder / "termination.json"),
            **environment,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen[str], folder: Path) -> End:
    _, log = process.communicate()
    message = json.loads((folder / "termination.json").read_text())
    return End(process.returncode, message, log)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the log until a line has the text."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"ended without {text!r}"


def test_two_processes_equal_one(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "one"), Volumes())

    process = start(inputs, tmp_path / "two", 2)
    _, log = process.communicate()

    assert process.returncode == 0, log
    assert "processes=2" in log
    assert_same_but_for_rounding(tmp_path / "one", tmp_path / "two")
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
    assert message["reason"] == "Stopped"
    assert "run the same command to continue" in message["message"]
    assert read_marker(tmp_path, "k") is None


def test_killed_process_continues_in_the_same_bits(inputs: Path, tmp_path: Path) -> None:
    options = {"max_steps": 60, "save_every_steps": 4, "keep_last": 2}
    whole = start(inputs, tmp_path / "whole", 2, **options)
    broken = start(inputs, tmp_path / "broken", 2, **options)
    wait_for(broken, "checkpoint step=4")
    for pid in descendants(broken.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    broken.communicate()
    whole.communicate()
    assert broken.returncode == 137
    assert whole.returncode == 0
    saved = list_states(run_path(tmp_path / "broken"))[-1][0]
    assert 4 <= saved < 60

    again = start(inputs, tmp_path / "broken", 2, **options)
    _, log = again.communicate()

    assert again.returncode == 0, log
    assert f"continued step={saved}" in log
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")


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


# --- why it ended: processes whose stage ends in a chosen way --------------------------------


@pytest.mark.parametrize(
    ("mode", "code", "reason", "rank", "text"),
    [
        ("killed", 137, "Killed", 1, "rank 1 was ended by SIGKILL"),
        ("crashed", 139, "Crashed", 1, "rank 1 was ended by SIGSEGV"),
        ("left", 1, "Crashed", 1, "rank 1 ended with exit code 3 without saying why"),
        ("data_error", 2, "DataError", 1, "clips/7.mp4: 3 frames; needs 17"),
        ("gpu_fault", 81, "GpuFault", 1, "uncorrectable ECC error"),
        ("lose_peer", 80, "PeerLost", None, "Connection closed by peer"),
        ("watchdog", 80, "PeerLost", 0, "ncclRemoteError"),
    ],
)
def test_first_failure_decides_exit_code_and_message(
    tmp_path: Path, mode: str, code: int, reason: str, rank: int | None, text: str
) -> None:
    end = end_of(start_program(tmp_path, mode), tmp_path)

    assert (end.code, end.message["reason"]) == (code, reason), end.log
    assert text in end.message["message"]
    assert end.message["node"] == "node-a"
    if rank is not None:
        assert end.message["rank"] == rank


def test_kill_in_a_reduction_is_the_cause_and_its_step_is_known(tmp_path: Path) -> None:
    end = end_of(start_program(tmp_path, "real_peer_loss", processes=3), tmp_path)

    assert end.code == 137, end.log
    assert end.message["reason"] == "Killed"
    assert end.message["rank"] == 1
    assert end.message["step"] in (21, 22)
    assert end.message["checkpoint"] == 4


def test_success_carries_the_result(tmp_path: Path) -> None:
    end = end_of(start_program(tmp_path, "succeed"), tmp_path)

    assert end.code == 0, end.log
    assert end.message["reason"] == "Succeeded"
    assert end.message["result"] == {"steps": 6, "loss": 0.5}
    assert (end.message["step"], end.message["checkpoint"]) == (6, 6)


# --- stop requests ---------------------------------------------------------------------------


def test_slow_save_is_waited_for(tmp_path: Path) -> None:
    """After a SIGTERM of its own, torchrun would kill the processes within a second."""
    process = start_program(
        tmp_path, "slow_save", SAVE_TAKES_S="6", TORCHELASTIC_SHUTDOWN_TIMEOUT="1"
    )
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    end = end_of(process, tmp_path)

    assert end.code == 75, end.log
    assert end.message["reason"] == "Stopped"
    assert end.message["checkpoint"] == 3


def test_save_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    process = start_program(tmp_path, "stubborn", COSMOS_SAVE_SECONDS="3")
    wait_for(process, "ready")
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    end = end_of(process, tmp_path)

    assert time.monotonic() - started < 20
    assert end.code == 143, end.log
    assert end.message["reason"] == "Killed"
    assert "no checkpoint was saved since any step" in end.message["message"]
    assert not [pid for pid in below if is_running(pid)]


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_stop_before_the_first_step_waits_for_nobody(tmp_path: Path) -> None:
    process = start_program(tmp_path, "never_begins")
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    end = end_of(process, tmp_path)

    assert time.monotonic() - started < 20
    assert (end.code, end.message["reason"]) == (75, "Stopped"), end.log


# --- several nodes ---------------------------------------------------------------------------


def test_first_node_without_an_address_is_waited_for_and_given_up(tmp_path: Path) -> None:
    process = start_program(
        tmp_path,
        "succeed",
        PET_NNODES="2",
        PET_NODE_RANK="1",
        MASTER_ADDR="nobody.invalid",
        COSMOS_RENDEZVOUS_SECONDS="2",
    )
    end = end_of(process, tmp_path)

    assert (end.code, end.message["reason"]) == (74, "RetryableError"), end.log
    assert "'nobody.invalid' has no address after 2 s" in end.message["message"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_nodes(inputs: Path, target: Path, **trainer: object) -> list[subprocess.Popen[str]]:
    """Two launchers of one process each, as two pods; their termination messages are node-0.json, node-1.json."""
    target.mkdir(exist_ok=True)
    port = str(free_port())
    return [
        start(
            inputs,
            target,
            1,
            environment={
                "PET_NNODES": "2",
                "PET_NODE_RANK": str(node),
                "RANK": str(node),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "COSMOS_TERMINATION_LOG": str(target / f"node-{node}.json"),
            },
            **trainer,
        )
        for node in range(2)
    ]


def messages(target: Path) -> list[dict[str, Any]]:
    return [json.loads((target / f"node-{node}.json").read_text()) for node in range(2)]


@pytest.mark.parametrize("stopped", [0, 1])
def test_stop_of_one_node_stops_and_saves_both(inputs: Path, tmp_path: Path, stopped: int) -> None:
    nodes = start_nodes(inputs, tmp_path, max_steps=100_000, save_every_steps=100_000)
    wait_for(nodes[0], "step=3/")
    nodes[stopped].send_signal(signal.SIGTERM)
    started = time.monotonic()
    logs = [node.communicate()[1] for node in nodes]

    assert [node.returncode for node in nodes] == [75, 75], logs
    assert time.monotonic() - started < 60
    saved = list_states(run_path(tmp_path))[-1][0]
    for message in messages(tmp_path):
        assert message["reason"] == "Stopped"
        assert (message["step"], message["checkpoint"]) == (saved, saved)


def test_kill_on_one_node_is_a_lost_peer_on_the_other(inputs: Path, tmp_path: Path) -> None:
    nodes = start_nodes(inputs, tmp_path, max_steps=100_000, save_every_steps=2)
    wait_for(nodes[0], "checkpoint step=4")  # so the other knows that of step 2
    (agent,) = child_processes(nodes[1].pid)
    os.kill(next(child_processes(agent)), signal.SIGKILL)
    logs = [node.communicate()[1] for node in nodes]

    assert [node.returncode for node in nodes] == [80, 137], logs
    lost, killed = messages(tmp_path)
    assert (lost["reason"], killed["reason"]) == ("PeerLost", "Killed")
    assert killed["rank"] == 1
    assert min(lost["checkpoint"], killed["checkpoint"]) >= 2
