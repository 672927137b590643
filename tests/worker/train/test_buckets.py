"""Two sizes and lengths in one run: from MP4 files to weights, on one and several processes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.buckets import TALL, WIDE, bucket_experiment, write_bucket_inputs
from support.runs import assert_same_bits, assert_same_but_for_rounding, losses, metrics, stop_after
from support.training import small_experiment, train_config, train_with_processes

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.errors import CheckpointError, DataError, StopRequested
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.data import (
    Batch,
    WindowDataset,
)
from cosmos_worker.train.trainer import Trainer

VOLUMES = Volumes()
STEPS = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bucket_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one process."""
    target = tmp_path_factory.mktemp("whole")
    train_stage.run(train_config(inputs, bucket_experiment(max_steps=STEPS), target), VOLUMES)
    return target


def open_dataset(inputs: Path, split: str, experiment: Experiment) -> WindowDataset:
    return WindowDataset(inputs / "index", inputs / "text", inputs / "latents", split, experiment)


def test_batches_have_the_size_and_rate_of_their_bucket(inputs: Path) -> None:
    dataset = open_dataset(inputs, "train", bucket_experiment())
    wide, tall = dataset.members[WIDE.size_name], dataset.members[TALL.size_name]

    assert (len(wide), len(tall)) == (6, 8)
    of_wide, of_tall = dataset.batch(wide[:2].tolist()), dataset.batch(tall[:2].tolist())
    assert of_wide.x0_BCTHW.shape == (2, 16, 3, 4, 6)
    assert of_tall.x0_BCTHW.shape == (2, 16, 2, 6, 4)
    assert of_wide.fps_B.tolist() == [10, 10]
    assert of_tall.fps_B.tolist() == [5, 5]


def test_run_trains_on_both_buckets_and_tells(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shapes: list[tuple[int, ...]] = []
    original = Trainer._micro_batch

    def note(trainer: Trainer, *arguments: object) -> tuple[Batch, object]:
        batch, noise = original(trainer, *arguments)
        shapes.append(tuple(batch.x0_BCTHW.shape[2:]))
        assert noise.noise_BCTHW.shape == batch.x0_BCTHW.shape
        return batch, noise

    monkeypatch.setattr(Trainer, "_micro_batch", note)
    experiment = bucket_experiment(max_steps=30, save_every_steps=30)
    with caplog.at_level(logging.INFO):
        result = train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    assert result["validation_loss_after"] < result["validation_loss_before"]
    steps = list(zip(shapes[::2], shapes[1::2], strict=True))
    assert all(one == other for one, other in steps), "a batch is of one bucket"
    # 30 batches of 4 of 14 windows are 8 epochs of 3.5 and 2 steps: 6/14 and 8/14 of the batches
    assert [shapes.count(size) // 2 for size in ((3, 4, 6), (2, 6, 4))] == pytest.approx(
        [13, 17], abs=1
    )
    told = [record.getMessage() for record in caplog.records]
    assert "bucket=17x32x48 windows=6 share_of_batches=0.429 dropped=0" in told
    assert any("latent=16x3x4x6,16x2x6x4 tokens_per_sample=18,12 " in line for line in told)


def test_loss_of_each_bucket_is_the_mean_of_its_steps(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[tuple[str | None, float]] = []
    original = Trainer.step

    def note(trainer: Trainer) -> object:
        sample = trainer.order.batch(trainer.state.done_steps)[0]
        result, rate = original(trainer)
        taken.append((trainer.dataset.windows[sample].bucket, float(result.losses[0])))
        return result, rate

    monkeypatch.setattr(Trainer, "step", note)
    experiment = bucket_experiment(max_steps=7, log_every_steps=3)
    with caplog.at_level(logging.INFO):
        train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    told = [line for line in metrics(tmp_path) if "loss" in line]
    spans = [taken[:3], taken[3:6], taken[6:]]
    assert {bucket for bucket, _ in taken} == {WIDE.size_name, TALL.size_name}
    for line, span in zip(told, spans, strict=True):
        losses: dict[str, list[float]] = {}
        for bucket, loss in span:
            losses.setdefault(str(bucket), []).append(loss)
        means = {bucket: sum(values) / len(values) for bucket, values in losses.items()}
        assert line["loss_by_bucket"] == pytest.approx(means, rel=1e-5)
        assert line["loss"] == pytest.approx(sum(loss for _, loss in span) / len(span), rel=1e-5)
    (only,) = told[-1]["loss_by_bucket"].items()
    shown = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith("step=7/7 loss=") and f" bucket_{only[0]}={only[1]:.4f} " in line
        for line in shown
    )


@pytest.mark.parametrize("step", [1, 4, 5])
def test_interrupted_run_ends_in_the_same_bits(
    inputs: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = train_config(inputs, bucket_experiment(max_steps=STEPS), tmp_path)
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, VOLUMES)

    train_stage.run(config, VOLUMES)

    assert_same_bits(whole, tmp_path)
    assert losses(tmp_path) == losses(whole)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [{}, {"sharding": "full"}], ids=["ddp", "full"])
def test_two_processes_compute_what_one_does(
    inputs: Path, whole: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    experiment = bucket_experiment(ParallelConfig(**options), max_steps=STEPS, micro_batch_size=1)

    train_with_processes(train_config(inputs, experiment, tmp_path), tmp_path, 2)

    assert_same_but_for_rounding(whole, tmp_path)
    for one, other in zip(metrics(whole), metrics(tmp_path), strict=True):
        by_bucket = one.get("loss_by_bucket", {})
        assert other.get("loss_by_bucket", {}) == pytest.approx(by_bucket, rel=2e-5)
    told = [name for line in metrics(whole) for name in line.get("loss_by_bucket", ())]
    assert set(told) == {WIDE.size_name, TALL.size_name}


def test_validation_weighs_every_window_alike(
    inputs: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out loss is the mean over windows, however many of them a pass holds."""
    single = bucket_experiment(max_steps=STEPS, micro_batch_size=1)
    train_stage.run(train_config(inputs, single, tmp_path), VOLUMES)

    together, alone = (
        [line["validation_loss"] for line in metrics(target) if "validation_loss" in line]
        for target in (whole, tmp_path)
    )
    assert together == pytest.approx(alone, rel=1e-5)


def test_index_of_other_buckets_is_refused(inputs: Path) -> None:
    values = bucket_experiment().model_dump() | {"buckets": (WIDE,)}
    one = Experiment.model_validate(values)

    message = (
        r"train/brief@0 is of bucket 9x48x32, the experiment's buckets are: 17x32x48; run prepare"
    )
    with pytest.raises(DataError, match=message):
        open_dataset(inputs, "train", one)
    with pytest.raises(DataError, match=r"is of bucket .* buckets are: none"):
        open_dataset(inputs, "train", small_experiment())


def test_latents_of_another_size_are_refused(inputs: Path) -> None:
    larger = WIDE.model_copy(update={"height": 64, "width": 96})
    dataset = open_dataset(inputs, "train", bucket_experiment())
    dataset.sizes[WIDE.size_name] = larger

    message = r"wide0@0: its latent is \(16, 3, 4, 6\), the experiment's are \(16, 3, 8, 12\)"
    with pytest.raises(DataError, match=message):
        dataset.batch(dataset.members[WIDE.size_name][:1].tolist())


def test_continuing_with_other_buckets_is_refused(inputs: Path, whole: Path) -> None:
    changed = (WIDE, TALL.model_copy(update={"fps": 7}))
    values = bucket_experiment(max_steps=STEPS).model_dump() | {"buckets": changed}

    config = train_config(inputs, Experiment.model_validate(values), whole)
    before = contents(whole)

    with pytest.raises(CheckpointError, match=r"was trained with other options: buckets \("):
        train_stage.run(config, VOLUMES)
    assert contents(whole) == before  # its config.yaml too


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def test_bucket_smaller_than_a_batch_is_refused_before_training(
    inputs: Path, tmp_path: Path
) -> None:
    large = bucket_experiment(global_batch_size=8)

    with pytest.raises(DataError, match=r"bucket 17x32x48 has 6 training windows, fewer than"):
        train_stage.run(train_config(inputs, large, tmp_path), VOLUMES)
