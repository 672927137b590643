"""The loop on a small network of the true architecture: continue, stop, fail."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from support.runs import assert_same_bits, losses, metrics, stop_after, weights
from support.training import (
    run_path,
    small_experiment,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import CompatConfig
from cosmos_worker.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FolderInUseError,
    StopRequested,
)
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
    sha256_of_file,
    write_json,
)
from cosmos_worker.train import saver
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.weights.load import load_model

VOLUMES = Volumes()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def test_training_lowers_the_loss_and_writes_what_the_reference_writes(
    inputs: Path, tmp_path: Path
) -> None:
    experiment = small_experiment(max_steps=40, save_every_steps=20, keep_last=1)

    result = train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    run = run_path(tmp_path)
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == [
        f"iter_{step:09d}_{kind}_model.pt" for step in (20, 40) for kind in ("ema", "reg")
    ]
    assert [step for step, _ in list_states(run)] == [40]
    assert (result["steps"], result["checkpoint"]) == (40, 40)
    assert result["validation_loss_after"] < result["validation_loss_before"]
    assert [line["step"] for line in metrics(tmp_path) if "loss" in line] == list(range(1, 41))
    assert (run / "config.yaml").read_text().startswith("key: k")
    regular = torch.load(run / "checkpoints" / names[-1], weights_only=True)
    assert regular["net.x_embedder.proj.1.weight"].dtype == torch.bfloat16
    assert weights(tmp_path)["net.x_embedder.proj.1.weight"].dtype == torch.float32
    load_model(run / "checkpoints" / names[-2], experiment.net)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_interrupted_run_ends_in_the_same_bits(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = train_config(inputs, small_experiment(), tmp_path / "broken")
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "whole"), VOLUMES)
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(StopRequested, match="run the same command to continue"):
            train_stage.run(config, VOLUMES)
    assert [number for number, _ in list_states(run_path(tmp_path / "broken"))][-1] == step

    train_stage.run(config, VOLUMES)

    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")


def test_killed_during_a_save_continues_from_the_checkpoint_before(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL: no code of the worker may handle it."""

    config = train_config(inputs, small_experiment(), tmp_path / "broken")
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "whole"), VOLUMES)
    original = saver.complete_state

    def die_at_step_4(run: Path, step: int, *arguments: object) -> Path:
        if step == 4:
            raise Killed
        return original(run, step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(saver, "complete_state", die_at_step_4)
        with pytest.raises(Killed):
            train_stage.run(config, VOLUMES)
    assert [number for number, _ in list_states(run_path(tmp_path / "broken"))] == [2]
    assert list((run_path(tmp_path / "broken") / "state").glob(".*")), "what it had written"

    train_stage.run(config, VOLUMES)

    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert not list((run_path(tmp_path / "broken") / "state").glob(".*"))


def test_what_the_main_process_has_found_is_continued(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = train_config(inputs, small_experiment(), tmp_path)
    train_stage.run(config, VOLUMES)
    assert [step for step, _ in list_states(run_path(tmp_path))] == [2, 4, 6]
    monkeypatch.setattr(
        ProcessGroup, "from_main", lambda self, value: 4 if isinstance(value, int) else value
    )

    with caplog.at_level("INFO"):
        train_stage.run(config, VOLUMES)

    assert "continued step=4 from=" in caplog.text


def test_continuing_with_other_options_is_refused(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, small_experiment(max_steps=2), tmp_path), VOLUMES)

    with pytest.raises(
        CheckpointError, match=r"trainer\.seed \(0 -> 1\); continue with the same options"
    ):
        train_stage.run(train_config(inputs, small_experiment(seed=1), tmp_path), VOLUMES)


def test_run_of_a_version_without_a_later_option_is_continued(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_config(inputs, small_experiment(), tmp_path)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, VOLUMES)
    folder = list_states(run_path(tmp_path))[-1][1]
    progress = json.loads((folder / "progress.json").read_text())
    del progress["experiment"]["lora"]
    write_json(folder / "progress.json", progress)
    marker = json.loads((folder / "complete.json").read_text())
    marker["progress.json"] = {
        "bytes": (folder / "progress.json").stat().st_size,
        "sha256": sha256_of_file(folder / "progress.json"),
    }
    write_json(folder / "complete.json", marker)

    assert train_stage.run(config, VOLUMES)["steps"] == 6


def test_checkpoint_of_an_earlier_format_is_refused(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(max_steps=2), tmp_path)
    train_stage.run(config, VOLUMES)
    (tmp_path / "complete-k.json").unlink(missing_ok=True)
    folder = list_states(run_path(tmp_path))[-1][1]
    shutil.rmtree(folder / "shards")
    marker = json.loads((folder / "complete.json").read_text())
    own = {name: value for name, value in marker.items() if not name.startswith("shards/")}
    write_json(folder / "complete.json", own)

    with pytest.raises(
        CheckpointError, match="has no shards, as checkpoints of an earlier version"
    ):
        train_stage.run(config, VOLUMES)


def damage_shards(run: Path, step: int) -> None:
    """Turn one bit in the middle of a checkpoint's tensors."""
    path = run / "state" / f"iter_{step:09d}" / "shards" / "__0_0.distcp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", ["shards", "progress.json", "complete.json", "option"])
def test_run_continues_from_the_checkpoint_before_a_damaged_one(
    inputs: Path, tmp_path: Path, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole, target = tmp_path / "whole", tmp_path / "target"
    train_stage.run(train_config(inputs, small_experiment(), whole), VOLUMES)
    shutil.copytree(whole, target)
    folder = run_path(target) / "state" / "iter_000000006"
    if damaged == "shards":
        damage_shards(run_path(target), 6)
    elif damaged == "option":
        damaged = "progress.json"
        text = (folder / damaged).read_text()
        (folder / damaged).write_text(text.replace('"num_heads"', '"num_heads_"'))
    else:
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:-9])

    train_stage.run(train_config(inputs, small_experiment(), target), VOLUMES)

    name = "__0_0.distcp" if damaged == "shards" else damaged
    assert any(name in one.message and "damaged" in one.message for one in caplog.records)
    assert "continued step=4" in caplog.text
    assert_same_bits(whole, target)
    assert [step for step, _ in list_states(run_path(target))] == [2, 4, 6]
    assert not list((run_path(target) / "state").glob(".*")), "the damaged one is gone"


def test_only_checkpoint_that_is_damaged_is_refused(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(max_steps=2), tmp_path)
    train_stage.run(config, VOLUMES)
    damaged = run_path(tmp_path) / "state" / "iter_000000002" / "shards" / "__0_0.distcp"
    damaged.write_bytes(damaged.read_bytes()[:-100])

    with pytest.raises(
        CheckpointError,
        match=r"__0_0\.distcp: damaged .* delete .*iter_000000002 to continue .* or to begin anew",
    ):
        train_stage.run(config, VOLUMES)


def test_gradient_that_is_not_finite_stops_the_run_and_names_the_samples(tmp_path: Path) -> None:
    write_training_inputs(tmp_path, num_windows=4, bad_latent=torch.tensor(1e30))
    write_model(tmp_path / "model.pt")

    with pytest.raises(
        DataError, match=r"step 1, windows .*train/0@0.*: NaN or infinite gradient in \d+"
    ):
        train_stage.run(train_config(tmp_path, small_experiment()), VOLUMES)


def test_gradient_that_is_not_finite_is_zeroed_when_asked_for(tmp_path: Path) -> None:
    write_training_inputs(tmp_path, num_windows=4, bad_latent=torch.tensor(1e30))
    write_model(tmp_path / "model.pt")
    experiment = small_experiment(max_steps=2)
    compat = CompatConfig(zeroed_gradients=True)

    train_stage.run(
        train_config(tmp_path, experiment.model_copy(update={"compat": compat})), VOLUMES
    )

    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "out").values())


def test_second_writer_of_a_run_is_refused(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(max_steps=1), tmp_path)
    folder = run_path(tmp_path)
    folder.mkdir(parents=True)

    with (
        train_stage.only_writer(folder),
        pytest.raises(FolderInUseError, match="another process trains in this folder"),
    ):
        train_stage.run(config, VOLUMES)


def test_halves_of_exports_of_a_killed_training_are_removed(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(max_steps=1), tmp_path)
    exports = run_path(tmp_path) / "checkpoints"
    writers = [atomic_write(exports / f"iter_000000007_{kind}_model.pt") for kind in ("reg", "ema")]
    for writer in writers:
        writer.__enter__()  # never closed, as after a kill
    foreign = exports / ".notes.txt.abcd_123.tmp"
    foreign.write_text("")
    with train_stage.only_writer(run_path(tmp_path)), pytest.raises(FolderInUseError):
        train_stage.run(config, VOLUMES)
    assert len(list(exports.glob(".*"))) == 3, "its writer may still be there"

    train_stage.run(config, VOLUMES)

    assert list(exports.glob(".*")) == [foreign]


def test_run_on_a_volume_without_locks_is_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)

    with pytest.raises(ConfigError, match=r"\.lock: got 'Function not .* Lustre with -o flock"):
        train_stage.run(train_config(inputs, small_experiment(max_steps=1), tmp_path), VOLUMES)


def test_training_without_weights_needs_random_init(inputs: Path, tmp_path: Path) -> None:
    config = train_config(inputs, small_experiment(max_steps=1), tmp_path).model_copy(
        update={"model_uri": None}
    )

    with pytest.raises(
        ConfigError,
        match=r"model_uri: got null; name a folder or file of weights, or set trainer\.init=random",
    ):
        train_stage.run(config, VOLUMES)
    fresh = config.model_copy(update={"experiment": small_experiment(max_steps=1, init="random")})
    assert train_stage.run(fresh, VOLUMES)["steps"] == 1
