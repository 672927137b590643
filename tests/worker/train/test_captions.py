"""Clips with several captions: the one drawn for a window and epoch is the same for any number of processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.runs import assert_same_bits, losses, stop_after
from support.training import small_experiment, train_config, write_model, write_training_inputs

from cosmos_worker.errors import RetryableError, StopRequested
from cosmos_worker.report.collect import count_captions
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.data import WindowDataset, check_same_windows, micro_batch_positions
from cosmos_worker.train.noise import draw_caption
from cosmos_worker.train.order import BucketOrder, DataOrder

VOLUMES = Volumes()
NUM_WINDOWS = 10


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    write_training_inputs(root, NUM_WINDOWS, num_captions=3)
    write_model(root / "model.pt")
    return root


def dataset(root: Path, split: str = "train", seed: int = 0) -> WindowDataset:
    experiment = small_experiment(seed=seed)
    return WindowDataset(root / "index", root / "text", root / "latents", split, experiment)


def shown(windows: WindowDataset, epoch: int) -> list[str]:
    """Captions of all windows in an epoch."""
    samples = range(len(windows))
    return windows.captions(samples, [epoch] * len(samples))


def test_every_caption_of_a_clip_has_its_turn(inputs: Path) -> None:
    windows = dataset(inputs)

    found = Counter(text for epoch in range(60) for text in shown(windows, epoch))

    assert set(found) == {"push 0", "push 1", "push 2"}
    assert min(found.values()) > 150  # of 600, 200 expected with a deviation of 12


def test_caption_depends_on_seed_window_and_epoch_only(inputs: Path) -> None:
    windows = dataset(inputs)

    assert shown(windows, 3) == shown(dataset(inputs), 3)
    assert windows.captions([4, 2], [3, 5]) == [shown(windows, 3)[4], shown(windows, 5)[2]]
    assert shown(windows, 3) != shown(windows, 4)
    assert shown(windows, 3) != shown(dataset(inputs, seed=1), 3)


class MainOfTwo(ProcessGroup):
    """The main process of two; the other answers with its own value, as of a node named ``older``."""

    others: list[Any]

    def gather(self, value: Any) -> list[Any]:
        self.others.append(("older", value[1]))
        return [value, self.others[0]]


@pytest.mark.parametrize("split", ["train", "val"])
def test_processes_that_see_other_windows_do_not_train(inputs: Path, split: str) -> None:
    here, alone = MainOfTwo(0, 2), ProcessGroup(0, 1)
    object.__setattr__(here, "others", [])
    whole = {"train": dataset(inputs), "val": dataset(inputs, "val")}
    check_same_windows(whole, alone)
    check_same_windows(whole, here)  # the other one sees the same
    fewer = dataset(inputs, split)
    fewer.windows = fewer.windows[1:]

    with pytest.raises(
        RetryableError, match=rf"the {split} windows of process 1 on node older are not those of"
    ):
        check_same_windows({**whole, split: fewer}, here)


def test_training_compares_the_windows_of_its_processes(inputs: Path, tmp_path: Path) -> None:
    here = MainOfTwo(0, 2)
    older = {"train": "9 windows", "val": "2 windows"}
    object.__setattr__(here, "others", [("older", older)])
    config = train_config(inputs, small_experiment(), tmp_path)

    with pytest.raises(RetryableError, match="9 windows; instead of 10 windows"):
        train_stage._open_windows(config, VOLUMES, tmp_path, here)


def test_draw_is_the_same_in_every_version() -> None:
    drawn = [draw_caption(3, 0, "train/0@0", epoch) for epoch in range(8)]

    assert drawn == [0, 1, 2, 2, 1, 0, 2, 2]


def test_validation_and_samples_have_the_first_caption(inputs: Path) -> None:
    held_out = dataset(inputs, "val")

    assert held_out.captions([0, 1]) == ["push 0", "push 1"]
    given = held_out.batch([0, 1]).text_BSD
    first = [held_out.embeddings.get(f"push {i}") for i in (0, 1)]
    assert [len(one) for one in first] == [3, 4]
    assert all(
        given[i, : len(one)].numpy().astype("float16").tobytes() == one.tobytes()
        for i, one in enumerate(first)
    )


def test_single_captions_keep_the_identity_of_their_dataset(tmp_path: Path) -> None:
    write_training_inputs(tmp_path, 3)
    windows = dataset(tmp_path)

    names = "\n".join(f"train/{i}@0 push {i}" for i in range(3))
    assert windows.digest == hashlib.sha256(names.encode()).hexdigest()[:16]
    assert shown(windows, 5) == windows.captions(range(3))


def test_further_caption_is_another_dataset(inputs: Path, tmp_path: Path) -> None:
    write_training_inputs(tmp_path, NUM_WINDOWS, num_captions=2)

    assert dataset(tmp_path).digest != dataset(inputs).digest


def test_epoch_of_each_sample_is_that_of_its_permutation() -> None:
    order = DataOrder(num_samples=5, global_batch_size=3, seed=0, digest="d")

    assert [order.epochs(step) for step in range(4)] == [
        [0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 2, 2],
    ]  # fmt: skip


def test_epoch_of_a_bucket_is_its_own(inputs: Path) -> None:
    windows = dataset(inputs)
    whole = DataOrder(9, 3, 0, "d")
    members = {"a": windows.members[None][:3], "b": windows.members[None][3:9]}
    order = BucketOrder(whole, members)

    seen: dict[int, list[int]] = {}
    for step in range(9):
        for sample, epoch in zip(order.batch(step), order.epochs(step), strict=True):
            seen.setdefault(sample, []).append(epoch)

    assert seen == {sample: [0, 1, 2] for sample in range(9)}


def captions_of_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Captions that the batches of trainings from now on have, in their order."""
    told: list[str] = []
    true = WindowDataset.captions

    def captions(
        windows: WindowDataset, samples: Sequence[int], epochs: Sequence[int] | None = None
    ) -> list[str]:
        found = true(windows, samples, epochs)
        if epochs is not None:
            told.extend(
                f"{windows.windows[s].window_id} {t}" for s, t in zip(samples, found, strict=True)
            )
        return found

    monkeypatch.setattr(WindowDataset, "captions", captions)
    return told


def test_interrupted_run_continues_with_the_captions_of_its_steps(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = captions_of_run(monkeypatch)
    train_stage.run(train_config(inputs, small_experiment(), tmp_path / "whole"), VOLUMES)
    whole = told.copy()
    told.clear()
    config = train_config(inputs, small_experiment(), tmp_path / "broken")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, VOLUMES)

    train_stage.run(config, VOLUMES)

    assert len(whole) == 24  # 6 steps of 4: the third epoch begins
    assert told == whole
    texts_of = {line.split()[0]: set() for line in whole}
    for line in whole:
        texts_of[line.split()[0]].add(line)
    assert max(len(texts) for texts in texts_of.values()) > 1
    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_processes_have_the_captions_of_one(inputs: Path, world_size: int) -> None:
    windows = dataset(inputs)
    order = BucketOrder(DataOrder(NUM_WINDOWS, 4, 0, windows.digest), windows.members)

    def of_step(step: int, processes: int) -> list[str]:
        samples, epochs = order.batch(step), order.epochs(step)
        return [
            text
            for rank in range(processes)
            for positions in micro_batch_positions(4, 1, rank, processes)
            for text in windows.captions(
                [samples[position] for position in positions],
                [epochs[position] for position in positions],
            )
        ]

    for step in range(5):
        assert of_step(step, world_size) == of_step(step, 1)


def test_report_counts_every_caption_and_every_clip_once(inputs: Path) -> None:
    captions = count_captions(inputs / "index")

    assert captions.num_clips == NUM_WINDOWS
    assert dict(captions.counts) == {f"push {i}": NUM_WINDOWS for i in range(3)}
