"""Sample videos of the training in the report."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from support.generation import write_clips
from support.reports import PROMPTS, write_finished_job

from cosmos_worker.errors import DataError
from cosmos_worker.report.samples import evenly, sample_cards
from cosmos_worker.stages import report
from cosmos_worker.storage.volumes import (
    SAMPLED_WINDOWS_FILE,
    SAMPLES_FOLDER,
    TRUTH_FOLDER,
    Volumes,
    samples_name,
    write_json,
)

STEPS = (0, 10, 20, 30, 40, 50)


@pytest.mark.parametrize(
    ("count", "expected"), [(9, [0, 1, 2, 3, 4, 5, 6]), (4, [0, 2, 4, 6]), (2, [0, 6])]
)
def test_evenly_keeps_the_ends(count: int, expected: list[int]) -> None:
    assert evenly(list(range(7)), count) == expected


def test_run_without_samples_has_no_cards(tmp_path: Path) -> None:
    assert sample_cards(tmp_path, tmp_path / "no dataset") == []


def test_report_shows_samples_of_some_steps_beside_the_truth(tmp_path: Path) -> None:
    job = write_finished_job(tmp_path)
    clips = write_clips(tmp_path / "sampled", len(STEPS) + 1)
    folder = Path(job.run_uri) / SAMPLES_FOLDER
    names = [TRUTH_FOLDER, *map(samples_name, STEPS)]
    for clip, name in zip(clips, names, strict=True):
        (folder / name).mkdir(parents=True)
        shutil.copy(clip, folder / name / "0-val_3@0.mp4")

    (card,) = sample_cards(Path(job.run_uri), Path(job.dataset_uri))
    page = Path(report.run(job, Volumes())["report"]).read_text()

    assert (card.title, card.prompt) == ("val/3@0", PROMPTS[1])
    labels = [clip.label for clip in card.clips]
    assert labels == ["Ground truth", "Step 0", "Step 20", "Step 30", "Step 50"]
    assert "While training" in page
    assert base64.b64encode(clips[-1].read_bytes()).decode() in page
    assert page.count("<article") == len(PROMPTS) + 1


def test_cards_have_the_window_and_caption_of_the_training_and_not_those_of_the_index(
    tmp_path: Path,
) -> None:
    job = write_finished_job(tmp_path)
    run, dataset = Path(job.run_uri), Path(job.dataset_uri)
    (clip,) = write_clips(tmp_path / "sampled", 1)
    for name in (TRUTH_FOLDER, samples_name(10)):
        (run / SAMPLES_FOLDER / name).mkdir(parents=True)
        for window in ("0-val_9@0", "1-val_gone@0"):
            shutil.copy(clip, run / SAMPLES_FOLDER / name / f"{window}.mp4")
    # the clip val/3 of the index was left out, so that another one stands first
    write_json(
        run / SAMPLES_FOLDER / SAMPLED_WINDOWS_FILE,
        {"0-val_9@0": {"window": "val/9@0", "caption": "its second caption"}},
    )

    cards = sample_cards(run, dataset)

    assert [(card.title, card.prompt) for card in cards] == [("val/9@0", "its second caption")]
    (run / SAMPLES_FOLDER / SAMPLED_WINDOWS_FILE).write_text("[1]")
    with pytest.raises(DataError, match=r"windows\.json: damaged .*; remove it and the videos"):
        sample_cards(run, dataset)
