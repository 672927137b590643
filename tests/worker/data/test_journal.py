"""The journal: results of checked videos are used again while the file is unchanged."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from cosmos_worker.data.journal import Journal
from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.video.facts import VideoFacts
from cosmos_worker.data.video.frame_times import Timeline
from cosmos_worker.storage.volumes import VIDEO_READER_VERSION

TIMELINE = Timeline(times=(5, 6, 7, 9, 10, 11), tick=Fraction(1, 25), last_duration=2)
FACTS = VideoFacts(TIMELINE, 32, 48, "ab", ((2, 7), (4, 10)), ("two streams",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "b.mp4").write_bytes(b"two")
    return tmp_path


def test_journal_knows_outcomes_again(root: Path):
    with Journal(root / "new" / "journal") as journal:
        assert journal.find(root, "a.mp4") is None
        journal.add(root, "a.mp4", FACTS)
        journal.add(root, "b.mp4", BadClip("b.mp4", "frame_count", "3 of 4 frames ä"))

    with Journal(root / "new" / "journal") as journal:
        problem = journal.find(root, "b.mp4")

        assert len(journal) == 2
        assert journal.find(root, "a.mp4") == FACTS
        assert isinstance(problem, BadClip)
        assert (problem.reason, str(problem)[:22]) == ("frame_count", "b.mp4: 3 of 4 frames ä")


@pytest.mark.parametrize("change", ["size", "time"])
def test_journal_does_not_know_a_file_that_has_changed(root: Path, change: str):
    with Journal(root / "journal") as journal:
        journal.add(root, "a.mp4", FACTS)
    if change == "size":
        (root / "a.mp4").write_bytes(b"longer")
    else:
        os.utime(root / "a.mp4", ns=(0, 1))

    assert Journal(root / "journal").find(root, "a.mp4") is None


def test_journal_goes_on_after_a_line_that_was_cut(root: Path):
    path = root / "journal"
    with Journal(path) as journal:
        journal.add(root, "a.mp4", FACTS)
        journal.add(root, "b.mp4", FACTS)
    path.write_bytes(path.read_bytes()[:-20])

    with Journal(path) as journal:
        assert journal.find(root, "a.mp4") == FACTS
        assert journal.find(root, "b.mp4") is None
        journal.add(root, "b.mp4", FACTS)

    assert Journal(path).find(root, "b.mp4") == FACTS


def test_journal_passes_over_lines_of_another_form(root: Path):
    (root / "journal").write_text('[]\n{"video": "a.mp4"}\nnull\n\xff{\n')

    assert len(Journal(root / "journal")) == 0


def test_journal_does_not_believe_another_reader(root: Path):
    path = root / "journal"
    with Journal(path) as journal:
        journal.add(root, "a.mp4", BadClip("a.mp4", "frame_count", "3 of 4 frames"))
    ours = f'"reader": {VIDEO_READER_VERSION}'
    text = path.read_text()
    assert ours in text

    path.write_text(text.replace(ours, f'"reader": {VIDEO_READER_VERSION - 1}'))

    assert Journal(path).find(root, "a.mp4") is None
