"""Commands beside the stages: their output and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_worker.cli import main
from cosmos_worker.config.presets import EXPERIMENTS
from cosmos_worker.runtime import outcome

BRIDGE = "video2world_instruction_bridge_57frames"


def test_experiments_are_listed_with_sizes_and_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(EXPERIMENTS)
    plain = lines.index("video2world_7b_example_cosmos_nemo_assets")
    assert lines[plain + 1 : plain + 4] == [
        "  7B, plain Video2World at 720p",
        "  121 frames of 704x1280, the video's fps, 56,320 tokens; 2000 steps of 8 samples",
        "  8 GPUs of 80 GB: 76.6 GiB each (estimate)",
    ]
    assert lines[-1] == "  a CPU"


def plan(*arguments: str) -> int:
    return main(["plan", "--experiment", BRIDGE, *arguments, "--gpu-memory", "80GiB"])


def test_plan_prints_sizes_and_memory_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    batch = "trainer.global_batch_size=16"
    assert plan(batch, "parallel.activation_checkpointing=none", "--gpus", "8") == 0

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert lines["parameters"] == "7,236,208,640 in 571 entries of a weight file"
    assert lines["sample"] == "57 frames of 256x320 = 2,560 tokens"
    assert lines["step"] == "16 samples = 40,960 tokens"
    assert lines["per"] == "GPU           samples=2, tokens of a forward pass=2,560"
    assert lines["weights"] == "3.37  float32"
    assert lines["activations"].endswith("estimate")
    assert lines["total"] == "51.62  of 80.00: fits"


@pytest.mark.parametrize(
    ("option", "total"),
    [
        ("parallel.activation_checkpointing=block", "27.72"),
        ("ema.enabled=false", "48.25"),
        ("parallel.context_parallel=2", "38.85"),
    ],
)
def test_options_change_the_plan(
    capsys: pytest.CaptureFixture[str], option: str, total: str
) -> None:
    assert plan("parallel.activation_checkpointing=none", option, "--gpus", "8") == 0

    assert capsys.readouterr().out.splitlines()[-1].split()[1] == total


def test_hybrid_sharding_has_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    group = ("parallel.sharding=hybrid", "parallel.shard_group_size=4")
    assert plan(*group, "--gpus", "8") == 0

    assert "sharding=hybrid shards=4" in capsys.readouterr().out


def test_plan_counts_the_memory_of_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan("parallel.sharding=full", "--gpus", "8") == 0

    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("host")]
    assert line == (
        "host memory       13.5 GiB for pages of the weight file, which can be taken back; "
        "134.8 GiB on the first node until a checkpoint is written (estimate)"
    )


def test_plan_that_does_not_fit_is_exit_code_2_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(outcome.TERMINATION_VARIABLE, str(tmp_path / "message.json"))

    whole = ("parallel.sharding=none", "parallel.activation_checkpointing=none")
    assert plan(*whole, "--gpus", "8") == 2

    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].endswith("DOES NOT FIT")
    message = json.loads((tmp_path / "message.json").read_text())
    assert message["reason"] == "ConfigError"
    assert "it fits with parallel.sharding=full" in message["message"]
    assert message["message"] in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "0"], "got '0'; expected a whole number of at least 1"),
        (["optimizer.eps", "--gpus", "8"], "expected key.sub=value"),
        (["parallel.context_parallel=4", "--gpus", "6"], "4 does not divide 6 GPUs"),
    ],
)
def test_bad_arguments_are_explained(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = plan(*arguments)
    except SystemExit as leave:  # argparse
        code = leave.code  # type: ignore[assignment]

    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", ["80 gigs", "80"])
def test_bad_size_is_explained(capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["plan", "--experiment", BRIDGE, "--gpus", "8", "--gpu-memory", size])

    assert leave.value.code == 2
    assert f"size: got '{size}'; write a number and a unit" in capsys.readouterr().err


# --- check ---------------------------------------------------------------------------------------


def test_check_of_nothing_in_particular_succeeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")

    assert main(["check"]) == 0

    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line[8:17].strip() for line in lines][:4] == ["driver", "torch", "cuda", "nccl"]
    assert lines[-1] == "ok      hf-token in HF_TOKEN"
    assert "secret" not in printed.out + printed.err


def test_check_of_what_is_missing_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--needs", "apex,av", "--disk", f"{tmp_path}=999PB"]) == 2

    printed = capsys.readouterr()
    missing = [line for line in printed.out.splitlines() if line.startswith("MISSING")]
    assert [line.split()[1] for line in missing] == ["apex", "disk"]
    assert all("; " in line for line in missing)
    assert "this machine cannot run the job: 2 missing" in printed.err


def test_check_of_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "stage.yaml"
    document.write_text(f"{{key: k, target_uri: '{tmp_path}/out', artifacts: []}}")

    assert main(["check", "--document", str(document), "--disk", str(tmp_path)]) == 0
    disks = [line for line in capsys.readouterr().out.splitlines() if line.split()[1] == "disk"]
    assert [line.split()[2] for line in disks] == [f"{tmp_path}:", f"{tmp_path}/out:"]

    document.write_text("{key: k}")
    assert main(["check", "--document", str(document)]) == 2


@pytest.mark.parametrize("arguments", [["--needs", "x"], ["--disk", "/tmp=x"]])
def test_bad_question_is_exit_code_2(arguments: list[str]) -> None:
    assert main(["check", *arguments]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiments"],
        ["plan", "--experiment", BRIDGE, "--gpus", "8", "--gpu-memory", "999GiB"],
        ["check"],
    ],
)
def test_commands_need_no_torch(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom cosmos_worker.runtime import machine\nfrom cosmos_worker.cli import main\n"
        "machine.DRIVER_FILE = machine.Path('/absent')\n"
        f"code = main({arguments!r})\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else code)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )

    assert result.returncode == 0, result.stderr


def test_reader_that_has_seen_enough_is_no_failure() -> None:
    arguments = f"plan --experiment {BRIDGE} --gpus 8 --gpu-memory 20GiB"
    command = f"{sys.executable} -m cosmos_worker.cli {arguments} | true"

    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )

    assert result.returncode == 2  # because the plan does not fit, not because the pipe is closed
    assert "it fits with" in result.stderr
    assert len(result.stderr.splitlines()) == 1
