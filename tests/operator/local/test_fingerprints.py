"""Local paths of a job and their content."""

import os

import pytest
from support.jobs import make_job

from cosmos_operator.local import fingerprints
from cosmos_operator.local.fingerprints import (
    fingerprint,
    fingerprint_paths,
    with_absolute_paths,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "sub" / "b.txt").write_text("b")
    return tmp_path


def test_fingerprint_is_that_of_names_and_contents(folder):
    before = fingerprint(folder)
    os.utime(folder / "a.txt", (1, 1))
    assert fingerprint(folder) == before

    (folder / "a.txt").write_text("x")
    changed = fingerprint(folder)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").rename(folder / "sub" / "c.txt")

    assert len({before, changed, fingerprint(folder)}) == 3


def test_fingerprint_of_a_large_folder_is_that_of_names_sizes_and_times(folder, monkeypatch):
    monkeypatch.setattr(fingerprints, "HASHED_BYTES", 1)
    before = fingerprint(folder)

    os.utime(folder / "a.txt", (1, 1))

    assert fingerprint(folder) != before


def test_fingerprint_of_a_file_is_that_of_its_content(folder):
    assert fingerprint(folder / "a.txt") != fingerprint(folder / "sub" / "b.txt")


def test_relative_paths_begin_at_the_file_of_the_job(folder):
    job = make_job(
        {
            "model.source": {"path": "a.txt"},
            "dataset.source": {"path": "/elsewhere"},
            "inference.1.inputs": [
                {"prompt": "p", "conditioning": "sub/b.txt", "groundTruth": "dataset://x.mp4"}
            ],
        }
    )

    spec = with_absolute_paths(job, folder).spec

    assert spec.model.source.path == f"{folder}/a.txt"
    assert spec.dataset.source.path == "/elsewhere"
    assert spec.inference[0].inputs_file == "dataset://test.jsonl"
    assert spec.inference[1].inputs[0].conditioning == f"{folder}/sub/b.txt"
    assert spec.inference[1].inputs[0].ground_truth == "dataset://x.mp4"


def test_fingerprints_cover_every_local_path(folder):
    job = make_job(
        {
            **{f"{n}.source": {"path": "sub"} for n in ("model", "tokenizer", "embeddings")},
            "dataset.source": {"claim": {"path": "cubes"}},
            "inference.1.inputs.0.conditioning": "a.txt",
        }
    )

    found = fingerprint_paths(with_absolute_paths(job, folder))

    assert set(found) == {f"{folder}/sub", f"{folder}/a.txt"}


def test_folder_of_another_run_is_relative_to_the_jobs_file(tmp_path):
    job = make_job({"checkpoints": {"from": {"folder": "old/run"}}})
    address = make_job({"checkpoints": {"from": {"folder": "checkpoints://old/run"}}})

    found = with_absolute_paths(job, tmp_path).spec.checkpoints.start_from
    kept = with_absolute_paths(address, tmp_path).spec.checkpoints.start_from

    assert found.folder == str(tmp_path / "old/run")
    assert kept.folder == "checkpoints://old/run"
