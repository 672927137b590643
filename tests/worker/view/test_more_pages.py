"""Comparisons and datasets as pages, the number of files that a long list reads, and recorded attempts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.view_claims import (
    HOSTILE,
    KEY,
    write_dataset,
    write_generated,
    write_job,
    write_samples,
)

from cosmos_worker.storage.attempts import ATTEMPTS_FILE, Attempt, read_attempts, recorded_attempt
from cosmos_worker.view import pages
from cosmos_worker.view.app import build_app
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.pages import ROWS, Viewer


def browse(folder: Path) -> TestClient:
    return TestClient(build_app(Viewer(Folders.of(folder))), base_url="http://localhost")


def test_comparison_has_curves_differences_and_the_same_clips(tmp_path: Path) -> None:
    for name, rate, psnr in (("one", 1e-3, 20.0), ("two", 2e-3, 25.0)):
        root = write_job(tmp_path, name, overrides={"learning_rate": rate})
        write_samples(root, 10)
        write_generated(root, "after", psnr=psnr)

    address = "&".join(f"run=checkpoints/{name}-{KEY}" for name in ("one", "two"))
    text = browse(tmp_path).get(f"/compare?{address}").text

    assert text.count('class="line c0"') == text.count('class="line c1"') == 3
    assert "experiment.optimizer.learning_rate" in text
    assert "<td>0.001</td><td>0.002</td>" in text
    assert "<td>20</td><td>25</td>" in text
    assert 'aria-label="one: Step 10' in text
    assert 'aria-label="two: Step 10' in text
    assert text.count('aria-label="Ground truth: ') == 1


def test_dataset_shows_clips_and_what_was_dropped(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, ("push the red cube", HOSTILE))
    client = browse(tmp_path)
    address = f"/datasets/{folder.relative_to(tmp_path)}"

    text = client.get(address).text

    assert folder.name in client.get("/datasets").text
    assert "bad|1.mp4" in text
    assert "&lt;none&gt;" in text
    assert "<script>alert" not in text
    assert f"/files/datasets/{folder.name}/data/0.mp4#t=0.000,1.125" in text
    assert "1 clip that fit the filter" in client.get(f"{address}?q=RED").text


def test_first_page_of_a_long_list_reads_the_files_of_its_own_rows(tmp_path: Path) -> None:
    first = write_job(tmp_path, "job-0000")
    for number in range(1, 3 * ROWS):
        shutil.copytree(first, first.parent / f"job-{number:04}-{KEY}")
    folders = Folders.of(tmp_path)
    client = TestClient(build_app(Viewer(folders)), base_url="http://localhost")

    text = client.get("/").text

    assert "150 jobs" in text
    assert "Page 1 of 3" in text
    assert folders.counts["files"] == 2 * ROWS  # configuration and figures of each


def test_filter_by_state_reads_the_latest_jobs_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_STATES", 2)
    for number, age_s in enumerate((10, 20, 5000, 6000)):
        write_job(tmp_path, f"job-{number}", age_s=age_s)
    client = browse(tmp_path)

    text = client.get("/?state=training").text

    assert "2 jobs that fit the filter" in text
    assert "the state of 2 earlier jobs was not read" in text
    assert "job-3" not in text
    narrowed = client.get("/?state=stopped&q=job-3").text
    assert f"job-3-{KEY}" in narrowed
    assert "was not read" not in narrowed


def test_attempts_tell_hours_of_gpus_and_the_end(tmp_path: Path) -> None:
    root = write_job(tmp_path)
    run = next(root.rglob("metrics.jsonl")).parent
    with recorded_attempt(run, Attempt(1000.0, gpus=4), clock=lambda: 1000.0 + 3600):
        pass
    with (
        pytest.raises(RuntimeError),
        recorded_attempt(run, Attempt(9000.0, gpus=4), clock=lambda: 9000.0 + 1800),
    ):
        raise RuntimeError("disk\nfull https://user:secret@host/")
    with (run / ATTEMPTS_FILE).open("a") as stream:
        stream.write("[1]\n{cut off")

    first, second = read_attempts(run)
    text = browse(tmp_path).get(f"/jobs/checkpoints/push-{KEY}").text

    assert (first.seconds(0), first.end) == (3600, "trained all its steps")
    assert second.end.startswith("RuntimeError: disk full")
    assert "secret" not in second.end
    assert "6.00 GPU hours" in text
    assert "state-stopped" in text


@pytest.mark.parametrize(
    ("age_s", "is_complete", "state"),
    [(0, False, "training"), (3600, False, "stopped"), (3600, True, "finished")],
)
def test_state_is_told_from_marker_and_time(
    tmp_path: Path, age_s: float, is_complete: bool, state: str
) -> None:
    write_job(tmp_path, age_s=age_s, is_complete=is_complete)

    assert f'class="badge state-{state}"' in browse(tmp_path).get("/").text
