"""Sample videos while training: their content, and a training that they do not change."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from support.runs import assert_same_bits, metrics
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import (
    run_path,
    small_experiment,
    small_model,
    train_config,
    train_with_processes,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.data.video.files import read_video
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.train import samples
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.samples import SampleVideos
from cosmos_worker.weights.load import load_model

VOLUMES = Volumes()
NAMES = ["0-val_0@0.mp4", "1-val_1@0.mp4"]
SAMPLING = {"sample_every_steps": 2, "sample_steps": 2}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    write_tiny_tokenizer(root / "tokenizer")
    return root


def train(inputs: Path, target: Path, experiment: Experiment) -> Path:
    """Train on this process; the folder of its samples."""
    config = train_config(inputs, experiment, target, inputs / "tokenizer")
    train_stage.run(config, VOLUMES)
    return run_path(target) / "samples"


def test_sample_videos_are_written_at_fixed_steps(inputs: Path, tmp_path: Path) -> None:
    folder = train(inputs, tmp_path, small_experiment(max_steps=5, **SAMPLING))

    steps = sorted(path.name for path in folder.iterdir())
    assert steps == [*(f"step_{step:09d}" for step in (0, 2, 4, 5)), "truth", "windows.json"]
    for step in steps[:-1]:
        assert sorted(path.name for path in (folder / step).iterdir()) == NAMES
        for name in NAMES:
            assert read_video(folder / step / name).shape == (17, 32, 32, 3)


def test_samples_begin_with_the_known_frame_and_follow_the_weights(
    inputs: Path, tmp_path: Path
) -> None:
    folder = train(inputs, tmp_path, small_experiment(**SAMPLING))

    truth, first, last = (
        read_video(folder / step / NAMES[0]).astype(np.int64)
        for step in ("truth", "step_000000000", "step_000000006")
    )
    assert abs(truth[0] - first[0]).mean() < abs(truth[1:] - first[1:]).mean() / 3
    assert abs(first[1:] - last[1:]).max() > 0


def test_sampling_changes_no_bit_of_the_training(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "plain"), VOLUMES)

    train(inputs, tmp_path / "sampled", small_experiment(**SAMPLING))

    assert_same_bits(tmp_path / "plain", tmp_path / "sampled")
    plain, sampled = (
        [
            (line["step"], line.get("loss"), line.get("validation_loss"))
            for line in metrics(tmp_path / name)
        ]
        for name in ("plain", "sampled")
    )
    assert plain == sampled


def sample_videos(inputs: Path, run: Path, **trainer: object) -> SampleVideos:
    experiment = small_experiment(**SAMPLING, **trainer)
    folders = (inputs / name for name in ("index", "text", "latents"))
    tokenizer = load_tokenizer(inputs / "tokenizer", experiment.tokenizer, "cpu", "torchscript")
    held_out = WindowDataset(*folders, "val", experiment)
    alone = ProcessGroup(0, 1)
    return SampleVideos(run, held_out, experiment, tokenizer, alone)


def test_samples_are_of_the_average_and_leave_both_as_they_were(
    inputs: Path, tmp_path: Path
) -> None:
    model = small_model().train()
    ema = PowerEma(small_model(seed=1), 0.1, torch.float32)
    ema._sources = dict(model.named_parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = {name: value.clone() for name, value in ema.average.items()}

    written = sample_videos(inputs, tmp_path / "average").write(model, ema, 3)
    of_seed_1 = sample_videos(inputs, tmp_path / "plain").write(small_model(seed=1), None, 3)

    assert [path.read_bytes() for path in written.values()] == [
        path.read_bytes() for path in of_seed_1.values()
    ]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, average[name]) for name, value in ema.average.items())


def test_same_weights_give_the_same_videos_whatever_was_sampled_before(
    inputs: Path, tmp_path: Path
) -> None:
    both = sample_videos(inputs, tmp_path / "both").write(small_model(), None, 3)
    torch.rand(7)
    one = sample_videos(inputs, tmp_path / "one", sample_count=1).write(small_model(), None, 9)

    assert list(one) == ["0-val_0@0"]
    assert one["0-val_0@0"].read_bytes() == both["0-val_0@0"].read_bytes()


def test_more_samples_than_windows_are_all_windows(inputs: Path, tmp_path: Path) -> None:
    many = sample_videos(inputs, tmp_path, sample_count=9)

    assert len(many.write(small_model(), None, 1)) == 2


def test_sample_that_cannot_be_written_leaves_the_training_alone(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples, "write_video", full)

    with caplog.at_level(logging.WARNING):
        train(inputs, tmp_path, small_experiment(max_steps=2, **SAMPLING))

    assert "samples window=0-val_0@0 is left out ([Errno 28] No space left" in caplog.text
    assert list_exports(run_path(tmp_path), "ema").keys() == {2}


def test_samples_without_a_tokenizer_are_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer_uri: got null, but trainer\.sample_every_st"):
        train_stage.run(train_config(inputs, small_experiment(**SAMPLING), tmp_path), VOLUMES)

    assert not (run_path(tmp_path) / "metrics.jsonl").exists()


def test_samples_with_a_broken_tokenizer_are_refused(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(**SAMPLING), tmp_path, tmp_path / "nothing")

    with pytest.raises(CheckpointError, match=r"nothing: no encoder\.jit, decoder\.jit"):
        train_stage.run(config, VOLUMES)


def test_samples_of_a_run_are_those_of_its_exported_average(inputs: Path, tmp_path: Path) -> None:
    experiment = small_experiment(max_steps=5, **SAMPLING)
    folder = train(inputs, tmp_path, experiment)
    exported = load_model(list_exports(run_path(tmp_path), "ema")[4], experiment.net)

    again = sample_videos(inputs, tmp_path / "again").write(exported, None, 4)

    shown = folder / "step_000000004" / NAMES[0]
    assert shown.read_bytes() == again["0-val_0@0"].read_bytes()
    assert shown.read_bytes() != (folder / "step_000000002" / NAMES[0]).read_bytes()


@pytest.mark.multiproc
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "parallel",
    [ParallelConfig(), ParallelConfig(sharding="full"), ParallelConfig(context_parallel=2)],
    ids=["copies", "full", "frames"],
)
def test_spread_run_samples_what_one_process_does_and_changes_no_bit(
    inputs: Path, tmp_path: Path, parallel: ParallelConfig
) -> None:
    frames = 4
    sampled = {**SAMPLING, "sample_every_steps": 3}  # after steps with a held-out loss, and without
    write_training_inputs(tmp_path / "inputs", num_latent_frames=frames)
    options = {"micro_batch_size": 1, "keep_best": True, "validation_sigmas": (1.0,)}
    for name, sampling in (("plain", {}), ("sampled", sampled)):
        experiment = small_experiment(frames, parallel, **options, **sampling)
        train_with_two(inputs, tmp_path, tmp_path / name, experiment)
    alone = small_experiment(frames, **options, **sampled)
    config = train_config(tmp_path / "inputs", alone, tmp_path / "alone", inputs / "tokenizer")
    train_stage.run(config.model_copy(update={"model_uri": str(inputs / "model.pt")}), VOLUMES)

    assert_same_bits(tmp_path / "plain", tmp_path / "sampled")
    for step in ("truth", "step_000000000", "step_000000003", "step_000000006"):
        for name in NAMES:
            one, spread = (
                read_video(run_path(tmp_path / target) / "samples" / step / name).astype(np.int64)
                for target in ("alone", "sampled")
            )
            assert abs(one - spread).mean() < 1, (step, name)  # encoders differ by threads


def train_with_two(inputs: Path, root: Path, target: Path, experiment: Experiment) -> None:
    """Train with two processes."""
    target.mkdir()
    config = train_config(root / "inputs", experiment, target, inputs / "tokenizer")
    config = config.model_copy(update={"model_uri": str(inputs / "model.pt")})
    train_with_processes(config, target, 2)


def test_the_file_of_a_long_id_has_a_name_that_a_disk_takes() -> None:
    name = samples.file_name(12, f"val/{'x' * 400}@8")

    assert name.startswith("12-x")
    assert name.endswith("x@8")
    assert len(name) < 200
