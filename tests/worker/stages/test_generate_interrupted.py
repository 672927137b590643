"""An inference item of several passes that is interrupted and continues."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import killed_generate
from support.forked_processes import run_forked
from support.generation import generate_config, write_clips, write_models, write_tiny_model

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.sample import passes
from cosmos_worker.sample.kept_passes import FOLDER, KeptPasses
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import Volumes

PASSES = 4
SAMPLING = {"num_passes": PASSES, "num_input_frames": 9}
PROGRAM = Path(killed_generate.__file__)
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    clips = write_clips(tmp_path_factory.mktemp("clips"), 2)
    return [{"prompt": f"cube {n}", "visual_input_uri": str(clip)} for n, clip in enumerate(clips)]


@pytest.fixture(scope="module")
def whole(
    models: Path, inputs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Videos of an uninterrupted item."""
    target = tmp_path_factory.mktemp("whole")
    generate.run(make_config(models, target, inputs), Volumes())
    return videos(target)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passes that this process computes, from 1."""
    numbers: list[int] = []
    original = passes.generate_latents

    def watched(*arguments: Any) -> Any:
        numbers.append(arguments[-1] + 1)
        return original(*arguments)

    monkeypatch.setattr(passes, "generate_latents", watched)
    return numbers


def make_config(
    models: Path, target: Path, inputs: list[dict[str, Any]], **changes: Any
) -> GenerateConfig:
    sampling = {**SAMPLING, **changes.pop("sampling", {})}
    return generate_config(models, target, inputs, sampling=sampling, **changes)


def videos(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


def kept_files(target: Path) -> list[Path]:
    return sorted((target / FOLDER).glob("*/*"))


def write_document(config: GenerateConfig, folder: Path) -> str:
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(path)


def interrupt(config: GenerateConfig, num_passes: int) -> None:
    """Run the stage until so many passes of a batch are kept."""
    add = KeptPasses.add

    class StopError(Exception):
        pass

    def add_and_raise(self: KeptPasses, *arguments: Any) -> None:
        add(self, *arguments)
        if self.count == num_passes:
            raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptPasses, "add", add_and_raise)
        with pytest.raises(StopError):
            generate.run(config, Volumes())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -signal.SIGKILL), ("SIGTERM", 75)])
def test_a_killed_process_loses_the_pass_that_it_was_in(
    models: Path,
    inputs: list[dict[str, Any]],
    whole: dict[str, bytes],
    computed: list[int],
    tmp_path: Path,
    name: str,
    code: int,
) -> None:
    target = tmp_path / "out"
    config = make_config(models, target, inputs)
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), write_document(config, tmp_path), name, "0", "2"],
        env={**os.environ, "COSMOS_TERMINATION_LOG": str(tmp_path / "termination.json")},
        check=False,
    )
    assert ended.returncode == code
    assert [path.name for path in kept_files(target)] == ["001.mkv", "002.mkv"]
    assert not videos(target)
    if name == "SIGTERM":
        assert json.loads((tmp_path / "termination.json").read_text())["reason"] == "Stopped"

    result = generate.run(config, Volumes())

    assert computed == [3, 4]
    assert videos(target) == whole
    assert result["videos"] == 2
    assert not (target / FOLDER).exists()


def test_passes_are_told_and_only_what_is_left_is_counted(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(models, tmp_path, inputs)
    interrupt(config, 2)
    files = kept_files(tmp_path)
    caplog.clear()

    with caplog.at_level(logging.INFO):
        generate.run(config, Volumes())

    assert f"continue kept_passes=2/4 folder={files[0].parent}" in caplog.text
    assert "generate pass=2/4" not in caplog.text
    assert "generate pass=3/4 videos=000,001" in caplog.text
    assert "generate steps=6/6 " in caplog.text


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_damaged_pass_is_told_and_made_again(
    models: Path,
    inputs: list[dict[str, Any]],
    whole: dict[str, bytes],
    computed: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damaged: int,
) -> None:
    config = make_config(models, tmp_path, inputs)
    interrupt(config, 3)
    path = kept_files(tmp_path)[damaged]
    path.write_bytes(path.read_bytes()[:-2000])
    (path.parent / ".004.mkv.x.tmp").write_bytes(b"half")
    computed.clear()

    generate.run(config, Volumes())

    assert f"{path}: damaged" in caplog.text
    assert f"pass {damaged + 1} and those after it are made again" in caplog.text
    assert computed == list(range(damaged + 1, PASSES + 1))
    assert videos(tmp_path) == whole


def test_passes_of_another_request_are_thrown_away(
    models: Path, inputs: list[dict[str, Any]], computed: list[int], tmp_path: Path
) -> None:
    own, target = tmp_path / "models", tmp_path / "out"
    write_models(own)
    changed = [{**inputs[0], "prompt": "another"}, inputs[1]]
    interrupt(make_config(own, target, inputs), 1)

    for changes in ({}, {"sampling": {"seed": 2}}, {"compute_dtype": "bfloat16"}, {"weights": 1}):
        (before,) = (target / FOLDER).iterdir()
        if changes.pop("weights", None):
            write_tiny_model(own, seed=1)
        computed.clear()

        interrupt(make_config(own, target, changed, **changes), 1)

        (after,) = (target / FOLDER).iterdir()
        assert after != before
        assert computed == [1]


def test_seconds_of_earlier_attempts_count(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    target = tmp_path / "a"
    kept = KeptPasses.of(target, "k", 1, make_config(models, target, inputs).sampling)
    kept._since -= 100
    kept.add(0, np.zeros((1, 17, 32, 64, 3), dtype=np.uint8))

    again = KeptPasses.of(target, "k", 1, kept.sampling)

    assert [part.shape for part in again.load()] == [(1, 17, 32, 64, 3)]
    assert 100 <= again.elapsed_s() < 110


def test_a_pass_after_one_that_is_not_kept_is_left_out(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    kept = KeptPasses.of(tmp_path, "k", 1, make_config(models, tmp_path, inputs).sampling)

    kept.add(1, np.zeros((1, 8, 32, 64, 3), dtype=np.uint8))

    assert not kept_files(tmp_path)


# --- several processes -----------------------------------------------------------------------


LAUNCH = """
import os, sys
from cosmos_worker.runtime import launch
sys.exit(launch.launch_program(sys.argv[2:], int(sys.argv[1]), os.environ))
"""


def launch_killed(config: GenerateConfig, folder: Path, rank: int) -> None:
    """Two processes, of which one is killed after its first pass."""
    program = [str(PROGRAM), write_document(config, folder), "SIGKILL", str(rank), "1"]
    ended = subprocess.run(
        [sys.executable, "-c", LAUNCH, "2", *program],
        env={**os.environ, "COSMOS_TERMINATION_LOG": str(folder / "termination.json")},
        check=False,
    )
    assert ended.returncode == 128 + signal.SIGKILL
    message = json.loads((folder / "termination.json").read_text())
    assert (message["reason"], message["rank"]) == ("Killed", rank)


def run_two(config: GenerateConfig, folder: Path) -> str:
    """Two processes that nothing interrupts; returns their log."""
    ended = run_forked(["generate", "--config", write_document(config, folder)], 2)
    assert set(ended.codes) == {0}, ended.log
    return ended.log


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_one_process_goes_on_with_the_passes_of_two(
    models: Path,
    inputs: list[dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one_by_one = {"batch_size": 1, "num_passes": 3}
    whole = make_config(models, tmp_path / "whole", inputs, sampling=one_by_one)
    generate.run(whole, Volumes())
    config = make_config(models, tmp_path / "out", inputs, sampling=one_by_one)
    launch_killed(config, tmp_path, 1)
    caplog.clear()

    with caplog.at_level(logging.INFO):
        generate.run(config, Volumes())

    told = [line for line in caplog.messages if line.endswith("videos=001")]
    assert told == [f"generate pass={number}/3 videos=001" for number in (2, 3)]
    assert videos(tmp_path / "out") == videos(tmp_path / "whole")
    assert not (tmp_path / "out" / FOLDER).exists()


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_processes_that_share_the_frames_go_on_together(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "context_parallel": 2,
        "sampling": {"num_pixel_frames": 9, "num_input_frames": 1, "num_passes": 3},
    }
    run_two(make_config(models, tmp_path / "whole", inputs[:1], **changes), tmp_path)
    config = make_config(models, tmp_path / "out", inputs[:1], **changes)
    launch_killed(config, tmp_path, 0)
    assert [path.name for path in kept_files(tmp_path / "out")] == ["001.mkv"]

    log = run_two(config, tmp_path)

    assert "pass=1/3" not in log
    assert "pass=2/3" in log
    assert videos(tmp_path / "out") == videos(tmp_path / "whole")
    assert not (tmp_path / "out" / FOLDER).exists()
