"""Checkpoints on disk, a full disk included."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from support.runs import latest_state

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train import checkpoint
from cosmos_worker.train.change_meter import Exports
from cosmos_worker.train.checkpoint import (
    SavedState,
    check_files,
    finish_interrupted_save,
    list_states,
    prune_states,
    read_progress,
    wait_for_state,
)
from cosmos_worker.train.export import (
    find_export,
    list_exports,
    prune_exports,
    write_exports,
)
from cosmos_worker.train.saver import Saver
from cosmos_worker.train.shard_files import load_shards

STATE = {"net.weight": torch.arange(4.0)}


def save(run: Path, step: int, state: dict[str, torch.Tensor] = STATE, **progress: str) -> Path:
    saver = Saver(run, ProcessGroup(0, 1), keep_last=9, keep_exports=9)
    saver.begin(step, {"model": state}, lambda _: Exports(STATE, None), progress)
    assert saver.finish() == step
    return list_states(run)[-1][1]


def test_state_survives_a_file(tmp_path: Path) -> None:
    save(tmp_path, 5, note="x")

    state = latest_state(tmp_path)

    assert state is not None
    assert state.progress == {"note": "x", "step": 5}
    check_files(state)
    loaded = {"model": {"net.weight": torch.zeros(4)}}
    load_shards(state.shards, loaded)
    assert torch.equal(loaded["model"]["net.weight"], STATE["net.weight"])


def test_state_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    state = latest_state(tmp_path)
    assert state is not None

    with pytest.raises(CheckpointError, match=r"cannot be read: .*net\.other.*; delete it"):
        load_shards(state.shards, {"model": {"net.other": torch.zeros(4)}})


def test_training_goes_on_while_a_state_is_written(tmp_path: Path) -> None:
    saver = Saver(tmp_path, ProcessGroup(0, 1), keep_last=9, keep_exports=9)
    weight = torch.zeros(3)
    saver.begin(1, {"model": {"net.weight": weight}}, lambda _: Exports(STATE, None), {})
    weight += 1

    assert saver.finish() == 1
    state = latest_state(tmp_path)
    assert state is not None
    loaded = {"model": {"net.weight": torch.ones(3)}}
    load_shards(state.shards, loaded)
    assert torch.equal(loaded["model"]["net.weight"], torch.zeros(3))


@pytest.mark.parametrize("error", [CheckpointError("damaged"), OSError(5, "Input/output error")])
def test_shards_that_cannot_be_read_again_fail_the_save(tmp_path: Path, error: Exception) -> None:
    def fail(shards: Path) -> Exports:
        assert (shards / ".metadata").is_file()
        raise error

    saver = Saver(tmp_path, ProcessGroup(0, 1), keep_last=9, keep_exports=9)
    saver.begin(1, {"model": {"net.weight": torch.ones(2)}}, fail, {})

    with pytest.raises(RetryableError, match="what was just written cannot be read for the export"):
        saver.finish()
    assert latest_state(tmp_path) is None
    assert not list((tmp_path / "state").iterdir())


def test_no_state_is_none(tmp_path: Path) -> None:
    assert latest_state(tmp_path) is None


def test_incomplete_state_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 5)
    folder = save(tmp_path, 10)
    (folder / "complete.json").unlink()

    state = latest_state(tmp_path)

    assert state is not None
    assert state.progress["step"] == 5


def test_state_that_a_node_sees_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5)
    folder = save(tmp_path, 10, note="late")
    hidden = folder.rename(folder.with_name("hidden"))
    monkeypatch.setattr(time, "sleep", lambda seconds: hidden.rename(folder))

    state = wait_for_state(tmp_path, 10)

    assert state.folder == folder
    assert state.progress == {"note": "late", "step": 10}


def test_state_that_a_node_does_not_see_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 5)
    monkeypatch.setattr(checkpoint, "VISIBLE_S", 0.0)

    with pytest.raises(
        RetryableError,
        match=r"state: the main process continues from step 10, which node \S+ does not see .*\(it sees: 5\); let all",
    ):
        wait_for_state(tmp_path, 10)


def test_old_states_are_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)

    prune_states(tmp_path, keep_last=2)

    assert [step for step, _ in list_states(tmp_path)] == [2, 3]


def test_process_killed_while_it_removes_a_checkpoint_leaves_nothing_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)

    def killed(folder: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint.shutil,
            "rmtree",
            lambda folder, **options: None if options else killed(folder),
        )
        with pytest.raises(KeyboardInterrupt):
            prune_states(tmp_path, keep_last=1)

    assert [step for step, _ in list_states(tmp_path)] == [2]
    prune_states(tmp_path, keep_last=1)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["iter_000000002"]


def test_checkpoint_that_was_written_whole_gets_its_name_after_a_kill(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    folder.rename(tmp_path / "state" / ".iter_000000007.tmp")
    assert list_states(tmp_path) == []

    finish_interrupted_save(tmp_path)

    assert [step for step, _ in list_states(tmp_path)] == [7]
    check_files(SavedState(folder, read_progress(folder)))


def test_full_disk_is_reported_and_leaves_the_earlier_checkpoint(small_disk: Path) -> None:
    save(small_disk, 1)
    large = {"net.weight": torch.zeros(1 << 20)}

    with pytest.raises(
        RetryableError, match=r"cannot write a checkpoint .* GiB of .* are free; make room"
    ):
        save(small_disk, 2, large)
    with pytest.raises(RetryableError, match="earlier checkpoints are intact"):
        write_exports(small_disk, 3, large, None, torch.float32)

    state = latest_state(small_disk)
    assert state is not None
    assert state.progress["step"] == 1
    assert list(list_exports(small_disk, "reg")) == [1], "exports come after the state"
    assert [path.name for path in (small_disk / "state").iterdir()] == ["iter_000000001"]
    assert not list((small_disk / "checkpoints").glob(".*"))


def test_exports_are_found_and_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_exports(tmp_path, step, STATE, STATE, torch.bfloat16)

    prune_exports(tmp_path, keep=2)

    assert find_export(tmp_path, "ema", None)[0] == 3
    assert find_export(tmp_path, "reg", 2)[1].name == "iter_000000002_reg_model.pt"
    with pytest.raises(CheckpointError, match="no reg weights of step 1; there are: 2, 3"):
        find_export(tmp_path, "reg", 1)
    with pytest.raises(CheckpointError, match="no ema weights of step latest; there are: none"):
        find_export(tmp_path / "empty", "ema", None)
