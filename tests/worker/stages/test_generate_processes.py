"""An inference item that several processes share: over its batches, and over the frames of each video."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.forked_processes import run_forked
from support.generation import generate_config, inputs_of, read_list, write_clips

from cosmos_worker.data.video.files import read_video
from cosmos_worker.errors import ConfigError
from cosmos_worker.runtime.process_group import (
    ProcessGroup,
    check_context_parallel,
)
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    read_marker,
)

LATENT_FRAMES = 3
ITEMS = 5


def test_batches_of_the_whole_list_are_dealt_in_turn() -> None:
    batches = list(range(7))

    dealt = [ProcessGroup(rank, 3).own_batches(batches) for rank in range(3)]

    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]
    assert ProcessGroup().own_batches(batches) == batches


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((4, 3, 3), "context_parallel: 3 does not divide the 4 processes; use a number that"),
        ((4, 2, 3), "context_parallel: 2 does not divide the 3 latent frames"),
    ],
)
def test_processes_that_cannot_share_the_frames_are_refused(
    numbers: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_context_parallel(*numbers)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    clips = write_clips(tmp_path_factory.mktemp("clips"), ITEMS)
    return inputs_of(clips, [f"cube {n}" for n in range(ITEMS)])


@pytest.fixture(scope="module")
def alone(models: Path, inputs: list[dict[str, Any]], tmp_path_factory: Any) -> Path:
    """Videos that one process generates alone."""
    target = tmp_path_factory.mktemp("alone")
    generate(models, target, inputs, 1)
    return target


def write_document(
    models: Path, target: Path, inputs: list[dict[str, Any]], **changes: Any
) -> Path:
    config = generate_config(models, target, inputs, **changes)
    document = target / "stage.yaml"
    target.mkdir(exist_ok=True)
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return document


def generate(
    models: Path, target: Path, inputs: list[dict[str, Any]], processes: int, **changes: Any
) -> dict[str, Any]:
    """Run the stage with so many processes; returns its result."""
    document = write_document(models, target, inputs, **changes)
    ended = run_forked(["generate", "--config", str(document)], processes)
    assert set(ended.codes) == {0}, ended.log
    marker = read_marker(target, "k")
    assert marker is not None
    return dict(marker["result"])


def launch(
    models: Path, target: Path, inputs: list[dict[str, Any]], processes: int, **changes: Any
) -> tuple[int, dict[str, Any]]:
    """Run the stage through torchrun; returns exit code and termination message."""
    document = write_document(models, target, inputs, **changes)
    message = target / "termination.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cosmos_worker.cli", "generate", "--config", str(document)),
            *("--nproc-per-node", str(processes)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COSMOS_TERMINATION_LOG": str(message)},
        check=False,
    )
    return done.returncode, json.loads(message.read_text())


def videos(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.mp4")}


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_two_processes_write_the_videos_of_one_and_a_list_of_all(
    models: Path, inputs: list[dict[str, Any]], alone: Path, tmp_path: Path
) -> None:
    code, message = launch(models, tmp_path, inputs, 2)

    assert code == 0
    assert videos(tmp_path) == videos(alone)
    assert len(videos(tmp_path)) == ITEMS
    lines = read_list(tmp_path)
    assert [line["id"] for line in lines] == [f"{number:03d}" for number in range(ITEMS)]
    marker = read_marker(tmp_path, "k")
    assert marker is not None
    assert message["result"] == marker["result"]
    assert message["result"]["videos"] == ITEMS


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_other_processes_go_on_with_what_is_missing(
    models: Path, inputs: list[dict[str, Any]], alone: Path, tmp_path: Path
) -> None:
    generate(models, tmp_path, inputs, 1)
    (tmp_path / "complete-k.json").unlink()
    (tmp_path / "003.json").unlink()
    (tmp_path / "004.mp4").write_bytes(b"cut off")

    result = generate(models, tmp_path, inputs, 2)

    assert result["kept"] == ITEMS - 2
    assert videos(tmp_path) == videos(alone)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
@pytest.mark.parametrize("passes", [1, 2])
def test_processes_that_share_the_frames_give_the_same_videos(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path, passes: int
) -> None:
    sampling = {"num_passes": passes, "guidance": 2.0}
    generate(models, tmp_path / "alone", inputs[:2], 1, sampling=sampling)

    generate(
        models, tmp_path / "shared", inputs[:2], LATENT_FRAMES, sampling=sampling,
        context_parallel=LATENT_FRAMES,
    )  # fmt: skip

    for name in ("000.mp4", "001.mp4"):
        one, shared = (
            read_video(tmp_path / folder / name).astype(int) for folder in ("alone", "shared")
        )
        assert len(one) == 17 + (passes - 1) * 16
        # sums of another order: float32 rounding, that is a pixel value here and there
        assert np.abs(one - shared).mean() < 0.5


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_a_process_that_fails_fails_all_with_its_own_message(
    models: Path, inputs: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The second process cannot write its video; the first has done its part by then."""
    (tmp_path / "out" / "001.mp4").mkdir(parents=True)

    code, message = launch(models, tmp_path / "out", inputs[:2], 2, sampling={"batch_size": 1})

    assert (code, message["reason"]) == (74, "OSError")
    assert "001.mp4" in message["message"]
    assert message["rank"] == 1
    assert not (tmp_path / "out" / GENERATED_FILE).exists()
    assert read_marker(tmp_path / "out", "k") is None
