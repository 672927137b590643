"""A training leaves out captions unknown to its text encoder, and equals one on a dataset without them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from support.runs import assert_same_bits
from support.training import (
    run_path,
    small_experiment,
    train_config,
    train_with_processes,
    write_model,
    write_training_inputs,
)

from cosmos_worker.data.index import read_index, write_index
from cosmos_worker.errors import DataError
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    Volumes,
    write_json,
)
from cosmos_worker.text.embeddings import CaptionFacts
from cosmos_worker.text.tokens import TextFacts
from cosmos_worker.train.data import WindowDataset

VOLUMES = Volumes()
FACTS = {"push 0": TextFacts(4, 0.0), "push 1": TextFacts(9, 0.4), "push 2": TextFacts(3, 0.9)}


def write_inputs(root: Path, facts: dict[str, TextFacts], num_windows: int = 10) -> Path:
    """Inputs whose captions are push 0, push 1, push 2 in turn."""
    write_training_inputs(root, num_windows)
    write_model(root / "model.pt")
    CaptionFacts(root / "text", "random").add(facts)
    return root


def remove_clips(root: Path, caption: str) -> None:
    """Remove the clips with a caption from the dataset."""
    clips = [clip for clip in read_index(root / "index").clips if clip.caption != caption]
    digest = write_index(root / "index", clips)
    write_json(
        root / "index" / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )


def test_training_leaves_clips_with_unknown_captions_out_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, same = write_inputs(tmp_path / "a", FACTS), write_inputs(tmp_path / "b", {})
    remove_clips(same, "push 2")

    with caplog.at_level(logging.INFO):
        result = train_stage.run(train_config(root, small_experiment()), VOLUMES)
    train_stage.run(train_config(same, small_experiment()), VOLUMES)

    assert result["dropped_clips"] == 3
    assert "left out clips=3 reason=caption_unknown: train/2, train/5, train/8" in caplog.text
    assert_same_bits(root / "out", same / "out")
    assert json.loads((run_path(root / "out") / "words.json").read_text()) == {
        "captions": 3,
        "truncated": 1,
        "with_unknown": 2,
        "unknown": 1,
        "reason": "caption_unknown",
        "dropped_clips": ["train/2", "train/5", "train/8"],
    }


def test_processes_leave_out_the_same(tmp_path: Path) -> None:
    root = write_inputs(tmp_path / "a", FACTS)
    experiment = small_experiment(max_steps=2)
    (tmp_path / "two").mkdir()

    train_stage.run(train_config(root, experiment, tmp_path / "one"), VOLUMES)
    log = train_with_processes(
        train_config(root, experiment, tmp_path / "two"), tmp_path / "two", 2
    )

    assert log.count("left out clips=3") == 1
    one, two = (
        json.loads((run_path(tmp_path / name) / "metrics.jsonl").read_text().splitlines()[1])
        for name in ("one", "two")
    )
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)


def test_of_several_captions_the_known_ones_are_kept(tmp_path: Path) -> None:
    root = write_inputs(tmp_path, FACTS)
    clips = [
        type(clip)(**{**clip.__dict__, "captions": ("push 2", "push 0")})
        for clip in read_index(root / "index").clips
    ]
    digest = write_index(root / "index", clips)
    write_json(
        root / "index" / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )

    dataset = WindowDataset(
        root / "index", root / "text", root / "latents", "train", small_experiment()
    )

    assert dataset.words.dropped == ()
    assert {clip.captions for clip in dataset.index.clips} == {("push 0",)}


def test_too_few_windows_with_known_captions_are_explained(tmp_path: Path) -> None:
    facts = {**FACTS, "push 1": TextFacts(3, 1.0)}
    root = write_inputs(tmp_path, facts, num_windows=9)

    with pytest.raises(
        DataError,
        match=r"3 training windows are left without 6 clips whose captions are more than half unknown .*"
        r"\(train/1, train/2, .*\), fewer than one batch of 4; translate",
    ):
        train_stage.run(train_config(root, small_experiment()), VOLUMES)


def test_store_without_notes_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_inputs(tmp_path, {})

    result = train_stage.run(train_config(root, small_experiment(max_steps=1)), VOLUMES)

    assert result["dropped_clips"] == 0
    assert "of 3 captions nothing is noted" in caplog.text
