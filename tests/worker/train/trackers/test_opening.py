"""Trackers beside metrics.jsonl: the installed ones are the real libraries, and no tracker can stop a training."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.runs import metrics
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.data.video.files import write_video
from cosmos_worker.errors import ConfigError, RetryableError
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.trackers import opening
from cosmos_worker.train.trackers.opening import KINDS, Kind, choose_trackers, open_trackers
from cosmos_worker.train.trackers.tracker import Trackers, stored_id

VOLUMES = Volumes()


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 8.0)
    return tmp_path / "clip.mp4"


class Recorder:
    """Tracker that records its calls, and fails at chosen ones."""

    name = "recorder"

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[tuple[object, ...]] = []

    def _tell(self, what: str, *arguments: object) -> None:
        if what == self.fails:
            raise ValueError("no route to host")
        self.told.append((what, *arguments))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._tell("scalars", step, dict(values))

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        self._tell("videos", step, dict(paths))

    def close(self) -> None:
        self._tell("close")


def use_recorder(monkeypatch: pytest.MonkeyPatch, fails: str = "") -> Recorder:
    """Let ``trainer.trackers=[tensorboard]`` be a recorder."""
    recorder = Recorder(fails)

    def open_recorder(*arguments: object) -> Recorder:
        if fails == "open":
            raise OSError("no route to host")
        return recorder

    monkeypatch.setitem(KINDS, "tensorboard", Kind("json", "worker", open_recorder))
    return recorder


# --- every tracker ---------------------------------------------------------------------------


def test_trackers_are_told_what_metrics_jsonl_says(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = use_recorder(monkeypatch)
    experiment = small_experiment(
        max_steps=3, trackers=("tensorboard",), validation_sigmas=(0.5, 2.0)
    )

    train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    lines = metrics(tmp_path)
    told = [values for what, *values in recorder.told if what == "scalars"]
    assert [step for step, _ in told] == [line["step"] for line in lines]
    assert told[0][1] == {
        "validation_loss": lines[0]["validation_loss"],
        "validation_loss_by_sigma/0.5": lines[0]["validation_loss_by_sigma"]["0.5"],
        "validation_loss_by_sigma/2": lines[0]["validation_loss_by_sigma"]["2"],
    }
    assert told[1][1] == {name: value for name, value in lines[1].items() if name != "step"}
    assert recorder.told[-1] == ("close",)


@pytest.mark.parametrize("fails", ["scalars", "close"])
def test_tracker_that_fails_is_named_once_and_left_out(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: str,
) -> None:
    use_recorder(monkeypatch, fails)
    experiment = small_experiment(max_steps=3, trackers=("tensorboard",))

    with caplog.at_level(logging.WARNING):
        train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    assert list_exports(run_path(tmp_path), "ema").keys() == {2, 3}
    assert caplog.text.count("tracker=recorder failed and is off (no route to host)") == 1


def test_failing_tracker_leaves_the_others_alone() -> None:
    good, bad = Recorder(), Recorder("scalars")
    trackers = Trackers([bad, good])

    trackers.scalars(1, {"loss": 2.0})
    trackers.scalars(2, {"loss": 1.0})

    assert [values[1] for values in good.told] == [1, 2]
    assert bad.told == []


def test_tracker_that_was_asked_for_and_is_absent_ends_the_run_before_it_begins(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "wandb", Kind("no_such_package", "wandb", Recorder))
    experiment = small_experiment(trackers=("wandb",))

    with pytest.raises(
        ConfigError,
        match=r"trainer\.trackers: wandb needs the package no_such_package.*post-training\[wandb\]",
    ):
        train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    assert not (run_path(tmp_path) / "metrics.jsonl").exists()


def test_default_goes_on_without_tensorboard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(KINDS, "tensorboard", Kind("no_such_package", "worker", Recorder))

    with caplog.at_level(logging.INFO):
        assert choose_trackers(None) == ()

    assert caplog.text.count("tensorboardX is not installed") == 1
    assert choose_trackers(()) == ()


def test_tracker_that_cannot_be_reached_is_tried_again_at_the_beginning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_recorder(monkeypatch, "open")
    experiment = small_experiment(trackers=("tensorboard",))

    with pytest.raises(RetryableError, match=r"tensorboard cannot be opened \(no route to host\)"):
        open_trackers(("tensorboard",), tmp_path, 0, experiment)
    with caplog.at_level(logging.WARNING):
        opening.open_trackers(("tensorboard",), tmp_path, 4, experiment).scalars(5, {"loss": 1.0})

    assert "tracker=tensorboard cannot be opened and is off" in caplog.text


def test_id_of_a_run_is_made_once(tmp_path: Path) -> None:
    ids = iter("abc")

    assert stored_id(tmp_path, "wandb", lambda: next(ids)) == "a"
    assert stored_id(tmp_path, "mlflow", lambda: next(ids)) == "b"
    assert stored_id(tmp_path, "wandb", lambda: next(ids)) == "a"


# --- TensorBoard -----------------------------------------------------------------------------


def read_events(run: Path) -> list[object]:
    """Events of all files, oldest first."""
    from tensorboardX.event_file_writer import EventFileWriter  # noqa: F401 - the format is its own
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((run / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            events.append(Event.FromString(content[12 : 12 + size]))
            content = content[12 + size + 4 :]
    return events


@needs("tensorboardX")
def test_tensorboard_files_hold_figures_and_videos(tmp_path: Path, clip: Path) -> None:
    run, experiment = tmp_path / "run", small_experiment()
    trackers = open_trackers(("tensorboard",), run, 0, experiment)
    trackers.scalars(3, {"loss": 0.25})
    trackers.videos(3, {"0-val": clip})
    trackers.close()

    values = [
        (event.step, value)
        for event in read_events(run)
        if event.HasField("summary")
        for value in event.summary.value
    ]

    assert [(step, value.tag) for step, value in values] == [(3, "loss"), (3, "samples/0-val")]
    assert values[0][1].simple_value == 0.25
    picture = values[1][1].image
    assert (picture.height, picture.width) == (32, 48)
    assert picture.encoded_image_string.startswith(b"GIF89a")


@needs("tensorboardX")
def test_tensorboard_hides_what_came_after_the_last_checkpoint(tmp_path: Path) -> None:
    open_trackers(("tensorboard",), tmp_path, 4, small_experiment()).close()

    sessions = [event for event in read_events(tmp_path) if event.HasField("session_log")]

    assert [event.step for event in sessions] == [5]


# --- Weights & Biases, MLflow ----------------------------------------------------------------


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_run_is_continued_under_its_id(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "out" / "project" / "group" / "small"
    run.mkdir(parents=True)
    for first in (0, 4):
        trackers = open_trackers(("wandb",), run, first, small_experiment(trackers=("wandb",)))
        trackers.scalars(first + 1, {"loss": 0.5})
        trackers.videos(first + 1, {"0-val": clip})
        assert len(trackers._trackers) == 1, "none has failed"
        trackers.close()

    name = json.loads((run / "trackers.json").read_text())["wandb"]
    # of two in one second, wandb gives the later one's folder a number at the end
    assert len(list((run / "wandb").glob(f"offline-run-*-{name}*"))) == 2


OPEN_WANDB = """
import sys
from pathlib import Path
from support.runs import metrics
from support.training import small_experiment
from cosmos_worker.train.trackers.opening import open_trackers
open_trackers(("wandb",), Path(sys.argv[1]), 0, small_experiment(trackers=("wandb",)))
"""


@needs("wandb")
def test_wandb_without_credentials_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "out" / "project" / "group" / "small"
    run.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
        "PYTHONPATH": ":".join(sys.path),
    }

    # a process of its own: wandb reads its environment once
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WANDB, str(run)],
        env={**kept, **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "ConfigError: trainer.trackers: wandb refuses" in done.stderr
    assert "set WANDB_API_KEY" in done.stderr


def test_mlflow_without_an_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        open_trackers(("mlflow",), tmp_path, 0, small_experiment(trackers=("mlflow",)))


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow_run_is_continued_under_its_id(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    address = f"file://{tmp_path / 'mlruns'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = tmp_path / "out" / "project" / "group" / "small"
    run.mkdir(parents=True)
    for first in (0, 4):
        trackers = open_trackers(("mlflow",), run, first, small_experiment(trackers=("mlflow",)))
        trackers.scalars(first + 1, {"loss": 0.5, "validation_loss_by_sigma/0.5": 1.0})
        trackers.videos(first + 1, {"0-val": clip})
        assert len(trackers._trackers) == 1, "none has failed"
        trackers.close()

    client = MlflowClient(tracking_uri=address)
    name = json.loads((run / "trackers.json").read_text())["mlflow"]
    assert [metric.step for metric in client.get_metric_history(name, "loss")] == [1, 5]
    assert client.get_run(name).info.status == "FINISHED"
    folders = [entry.path for entry in client.list_artifacts(name, "samples")]
    assert folders == ["samples/step_000000001", "samples/step_000000005"]
