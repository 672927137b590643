"""Tables of the GPU benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu.parts import Part
from benchmarks.gpu.report import JSON_FILE, MARKDOWN_FILE, save, summary
from benchmarks.gpu.runner import Outcome

STEP = Part("step", "compiled", 50, "m:f")
OUTCOMES = [
    Outcome(STEP, rows=[{"kind": "eager", "ms": 12.34567}, {"kind": "b|c", "MFU": 0.4}], seconds=7),
    Outcome(Part("step", "float8", 60, "m:f"), "failed", "out of memory", notes=["a note"]),
    Outcome(Part("video", "long", 70, "m:f"), "left out", "takes about 70 s, and 3 s were left"),
]


def test_tables_hold_rows_notes_and_what_became_of_each_part(tmp_path: Path) -> None:
    save(tmp_path, {"commit": "abc"}, OUTCOMES)

    text = (tmp_path / MARKDOWN_FILE).read_text()
    assert "commit: abc" in text
    assert "| kind | ms | MFU |\n|---|---|---|\n| eager | 12.3 | - |\n| b/c | - | 0.4 |" in text
    assert "- a note" in text
    assert "| step: compiled | done | 7 | 50 |  |" in text
    assert "| step: float8 | failed | 0 | 60 | out of memory |" in text
    assert "| video: long | left out | - | 70 | takes about 70 s, and 3 s were left |" in text
    assert "## video" not in text, "a table without rows has no heading"
    found = json.loads((tmp_path / JSON_FILE).read_text())
    assert found["parts"][0]["rows"][0] == {"kind": "eager", "ms": 12.34567}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([JSON_FILE, MARKDOWN_FILE])


def test_summary_names_what_failed() -> None:
    assert summary(OUTCOMES) == "1 parts done, 1 failed, 1 left out; failed: step: float8"
