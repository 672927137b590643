"""Held-out losses at fixed noise levels, and the checkpoint with the lowest held-out loss."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from pydantic import ValidationError
from support.runs import metrics
from support.training import (
    SMALL_NET,
    run_path,
    small_experiment,
    small_model,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import CompatConfig, Experiment
from cosmos_worker.config.stages import PublishConfig
from cosmos_worker.config.training import EmaConfig
from cosmos_worker.data.index import Clip, Window, write_index
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import publish
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    Volumes,
    write_json,
)
from cosmos_worker.train.checkpoint import (
    begin_state,
    complete_state,
    list_states,
    read_progress,
)
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.export import (
    Best,
    judged_loss,
    list_exports,
    read_best,
    update_best,
)
from cosmos_worker.train.trainer import Trainer
from cosmos_worker.train.validation import HeldOutLoss, choose_windows, held_out_loss
from cosmos_worker.weights.load import read_weight_file

VOLUMES = Volumes()
ALONE = ProcessGroup(0, 1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def take_losses(inputs: Path, experiment: Experiment) -> HeldOutLoss:
    folders = (inputs / name for name in ("index", "text", "latents"))
    held_out = WindowDataset(*folders, "val", experiment)
    return held_out_loss(small_model(), held_out, experiment, ALONE)


def records(target: Path) -> list[dict[str, object]]:
    return [line for line in metrics(target) if "validation_loss" in line]


# --- noise levels ----------------------------------------------------------------------------


def test_losses_of_levels_do_not_depend_on_the_experiment(inputs: Path) -> None:
    levels = (0.2, 1.0, 5.0)
    one = small_experiment(validation_sigmas=levels)
    other = small_experiment(
        validation_sigmas=levels[::-1], seed=5, validation_draws=1, micro_batch_size=1
    ).model_copy(
        update={
            "diffusion": one.diffusion.model_copy(update={"p_mean": 1.0}),
            "compat": CompatConfig(known_frames_in_loss=True),
            "text": one.text.model_copy(update={"dropout": 1.0}),
            "conditioning": one.conditioning.model_copy(update={"flag_dropout": 1.0}),
        }
    )

    left, right = take_losses(inputs, one), take_losses(inputs, other)

    assert left.by_sigma == pytest.approx(right.by_sigma, rel=1e-5)
    assert len(set(left.by_sigma.values())) == 3
    assert left.loss != pytest.approx(right.loss, rel=1e-2)


def test_levels_leave_the_loss_that_was_there_before(inputs: Path) -> None:
    plain = take_losses(inputs, small_experiment())
    asked = take_losses(inputs, small_experiment(validation_sigmas=(0.2, 1.0)))

    assert plain.by_sigma == {}
    assert asked.loss == plain.loss


def test_one_record_tells_the_losses_of_all_levels(inputs: Path, tmp_path: Path) -> None:
    experiment = small_experiment(
        max_steps=2, validate_every_steps=1, validation_sigmas=(0.25, 4.0)
    )
    train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    found = records(tmp_path)

    assert [record["step"] for record in found] == [0, 1, 2]
    assert all(list(record["validation_loss_by_sigma"]) == ["0.25", "4"] for record in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_sigmas": (1.0, 1.0)}, "names one twice"),
        ({"validation_sigmas": (0.0,)}, "greater than 0"),
        ({"trackers": ("wandb", "wandb")}, "names one twice"),
        ({"num_latent_frames": 1, "sample_every_steps": 1}, "leaves none to sample"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        small_experiment(**options)


@pytest.mark.parametrize(
    "options", [{"keep_best": True}, {"validation_sigmas": (1.0,)}, {"sample_every_steps": 1}]
)
def test_held_out_losses_need_held_out_clips(tmp_path: Path, options: dict[str, object]) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    clip = Clip("train/0", "train", "0.mp4", "push 0", 17, 10.0, 32, 32, (0,), "0" * 64)
    digest = write_index(tmp_path / "index", [clip])
    write_json(
        tmp_path / "index" / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )

    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(options))}: .* split val"):
        train_stage.run(train_config(tmp_path, small_experiment(**options)), VOLUMES)

    assert not (run_path(tmp_path / "out") / "metrics.jsonl").exists(), "nothing was begun"


# --- how many windows ------------------------------------------------------------------------


def held_out_of(lengths: dict[str, int]) -> WindowDataset:
    """A dataset of which only the windows are asked for: so many of each clip."""
    windows = [Window(clip, i, None) for clip, count in lengths.items() for i in range(count)]
    return cast("WindowDataset", FakeHeldOut(windows))


class FakeHeldOut:
    """Stands for the held-out windows of a dataset."""

    def __init__(self, windows: list[Window]) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)


def chosen_of(lengths: dict[str, int], count: int | None) -> dict[str, list[int]]:
    """First frames of the chosen windows by clip, where windows begin at 0, 1, 2 and so on."""
    held_out, found = held_out_of(lengths), dict[str, list[int]]()
    for number in choose_windows(held_out, count):
        window = held_out.windows[number]
        found.setdefault(window.clip_id, []).append(window.start)
    return found


def test_windows_of_all_clips_are_chosen_before_a_second_of_one() -> None:
    assert chosen_of({"a": 9, "b": 1, "c": 5}, 3) == {"a": [4], "b": [0], "c": [2]}
    assert chosen_of({"a": 9, "b": 1, "c": 5}, 8) == {"a": [1, 4, 7], "b": [0], "c": [0, 1, 3, 4]}


def test_clips_are_chosen_evenly_where_there_are_more_of_them() -> None:
    lengths = {f"{i}": 2 for i in range(100)}

    assert list(chosen_of(lengths, 4)) == ["12", "37", "62", "87"]


@pytest.mark.parametrize("count", [None, 15, 64])
def test_all_windows_are_chosen_where_there_are_not_more(count: int | None) -> None:
    assert chosen_of({"a": 9, "b": 1, "c": 5}, count) == {
        "a": list(range(9)),
        "b": [0],
        "c": list(range(5)),
    }


@pytest.mark.parametrize("count", range(1, 15))
def test_as_many_windows_are_chosen_as_asked_for(count: int) -> None:
    chosen = choose_windows(held_out_of({"a": 9, "b": 1, "c": 5}), count)

    assert len(set(chosen)) == count


def test_loss_is_that_of_the_chosen_windows(inputs: Path) -> None:
    first, both = (
        take_losses(inputs, small_experiment(validation_windows=count, validation_sigmas=(0.5,)))
        for count in (1, None)
    )
    chosen = small_experiment(validation_windows=2, validation_sigmas=(0.5,))

    assert take_losses(inputs, chosen) == both
    assert first.loss != pytest.approx(both.loss, rel=1e-3)
    assert first.by_sigma[0.5] != pytest.approx(both.by_sigma[0.5], rel=1e-3)


def test_log_tells_of_how_many_windows_losses_are_taken(
    inputs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    experiment = small_experiment(max_steps=1, validation_windows=1)
    train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    assert (
        "held-out losses windows=1 of 2 clips=1 of 2 draws=1; trainer.validation_windows sets how many"
        in caplog.messages
    )


# --- the best checkpoint ---------------------------------------------------------------------


def dictate_losses(monkeypatch: pytest.MonkeyPatch, losses: dict[int, float]) -> None:
    """Replace the held-out loss by given values, by step."""
    monkeypatch.setattr(
        Trainer,
        "validation_loss",
        lambda trainer: HeldOutLoss(losses.get(trainer.state.done_steps, 9.0)),
    )


LOSSES = {2: 0.5, 4: 0.3, 6: 0.7, 8: 0.3, 10: 0.8}
KEEP_BEST = {"max_steps": 10, "keep_best": True, "keep_last": 1, "keep_exports": 1}


def kept(target: Path) -> tuple[list[int], list[int], list[int]]:
    """Steps of checkpoints, regular and averaged exports."""
    run = run_path(target)
    states = [step for step, _ in list_states(run)]
    return states, list(list_exports(run, "reg")), list(list_exports(run, "ema"))


def test_best_checkpoint_outlives_those_that_are_newer(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictate_losses(monkeypatch, LOSSES)

    train_stage.run(train_config(inputs, small_experiment(**KEEP_BEST), tmp_path), VOLUMES)

    assert read_best(run_path(tmp_path)) == Best(4, 0.3)
    assert kept(tmp_path) == ([4, 10], [4, 10], [4, 10])


def test_every_checkpoint_has_the_loss_of_its_weights(inputs: Path, tmp_path: Path) -> None:
    experiment = small_experiment(max_steps=4, keep_best=True)
    experiment = experiment.model_copy(update={"ema": EmaConfig(enabled=False)})
    train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    run = run_path(tmp_path)
    saved = {step: read_progress(folder)["validation_loss"] for step, folder in list_states(run)}
    assert saved == {r["step"]: r["validation_loss"] for r in records(tmp_path) if r["step"]}
    assert read_best(run).validation_loss == min(saved.values())


def test_average_is_judged_where_there_is_one(inputs: Path, tmp_path: Path) -> None:
    experiment = small_experiment(max_steps=4, keep_best=True)
    train_stage.run(train_config(inputs, experiment, tmp_path), VOLUMES)

    run = run_path(tmp_path)
    saved = {step: read_progress(folder) for step, folder in list_states(run)}
    told = {r["step"]: r["validation_loss_ema"] for r in records(tmp_path) if r["step"]}
    assert {step: one["validation_loss"] for step, one in saved.items()} == told
    assert all(one["validation_weights"] == "ema" for one in saved.values())
    assert all(r["validation_loss_ema"] != r["validation_loss"] for r in records(tmp_path)[1:])
    assert read_best(run).validation_weights == "ema"
    average = {**small_model().state_dict(), **read_weight_file(list_exports(run, "ema")[4])}
    model = small_model()
    model.load_state_dict(average)
    folders = (inputs / name for name in ("index", "text", "latents"))
    again = held_out_loss(model, WindowDataset(*folders, "val", experiment), experiment, ALONE)
    assert again.loss == pytest.approx(told[4], rel=1e-5)


def test_loss_of_the_average_leaves_the_weights_as_they_are(inputs: Path, tmp_path: Path) -> None:
    for folder, keeps_best in ((tmp_path / "plain", False), (tmp_path / "best", True)):
        folder.mkdir()
        experiment = small_experiment(max_steps=4, keep_best=keeps_best, validate_every_steps=1)
        train_stage.run(train_config(inputs, experiment, folder), VOLUMES)

    for weights in ("reg", "ema"):
        plain, best = (
            list_exports(run_path(tmp_path / name), weights)[4].read_bytes()
            for name in ("plain", "best")
        )
        assert plain == best


def test_losses_of_weights_and_of_their_average_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step, loss in ((2, {"validation_loss": 0.1}), (4, judged_loss(HeldOutLoss(0.2, {}, 0.3)))):
        (tmp_path / "checkpoints" / f"iter_{step:09d}_reg_model.pt").touch()
        begin_state(tmp_path, step)
        complete_state(tmp_path, step, loss, {})

    assert update_best(tmp_path, 2) == Best(2, 0.1)
    assert update_best(tmp_path, 4) == Best(4, 0.3, "ema")


def test_a_loss_that_is_not_finite_is_not_judged() -> None:
    assert judged_loss(HeldOutLoss(0.2, {}, float("nan"))) == {}


def test_best_checkpoint_is_known_after_a_restart(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    dictate_losses(monkeypatch, LOSSES)
    config = train_config(inputs, small_experiment(**KEEP_BEST), tmp_path)
    original = Trainer.step

    def die_at_step_8(trainer: Trainer) -> object:
        if trainer.state.done_steps == 7:
            raise Killed
        return original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", die_at_step_8)
        with pytest.raises(Killed):
            train_stage.run(config, VOLUMES)
    # as if it had been killed between the checkpoint and the note of the best one
    (run_path(tmp_path) / "checkpoints" / "best.json").unlink()

    train_stage.run(config, VOLUMES)

    assert read_best(run_path(tmp_path)) == Best(4, 0.3)
    assert kept(tmp_path) == ([4, 10], [4, 10], [4, 10])


def test_best_of_an_earlier_life_of_the_run_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "iter_000000008_reg_model.pt").touch()
    write_json(tmp_path / "checkpoints" / "best.json", {"step": 8, "validation_loss": 0.1})

    assert update_best(tmp_path, 8) == Best(8, 0.1)
    assert update_best(tmp_path, 6) is None
    assert not (tmp_path / "checkpoints" / "best.json").exists()


def test_best_whose_weights_are_gone_does_not_count(tmp_path: Path) -> None:
    write_json(tmp_path / "checkpoints" / "best.json", {"step": 8, "validation_loss": 0.1})

    assert update_best(tmp_path, 8) is None


def publish_best(target: Path) -> dict[str, object]:
    config = PublishConfig(
        key="k",
        target_uri=str(target / "published"),
        run_uri=str(run_path(target)),
        job="small",
        name="small",
        net=SMALL_NET,
        step="best",
    )
    return publish.run(config, VOLUMES)


def test_publish_takes_the_best_checkpoint(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictate_losses(monkeypatch, LOSSES)
    train_stage.run(train_config(inputs, small_experiment(**KEEP_BEST), tmp_path), VOLUMES)

    result = publish_best(tmp_path)

    assert result["step"] == 4
    exported = list_exports(run_path(tmp_path), "ema")[4]
    assert (tmp_path / "published" / "model.pt").read_bytes() == exported.read_bytes()


def test_publish_names_what_is_missing_where_no_best_was_kept(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, small_experiment(max_steps=2), tmp_path), VOLUMES)

    with pytest.raises(CheckpointError, match=r"best\.json: no such file.*trainer\.keep_best=true"):
        publish_best(tmp_path)
