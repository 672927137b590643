"""The benchmark of the operator at scale, with a few jobs: it runs, and all of its figures are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.api_server


@pytest.mark.timeout(600)
def test_benchmark(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--sizes", "3/4,6/9", "--burst", "2", "--rest", "2", "--life-steps", "2"]
    ended = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "operator_at_scale.py",
            *options,
            f"--json={figures}",
            f"--folder={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "| | 3 live, 4 finished | 6 live, 9 finished |" in ended.stdout
    found = json.loads(figures.read_text(encoding="utf-8"))
    life = found["life"]["by_kind"]
    assert life["create jobs"] == 9, "eight stages, and the inference item"
    assert life["get pods/log"] > 0
    assert not any("leases" in kind for kind in life)
    for size in found["sizes"]:
        assert size["watched_objects"]["Job"] > 0
        assert 0 < size["rest_rss_mb"] <= size["rest_peak_mb"]
        assert 0 <= size["rest_percent_of_core"] < 100
        assert 0 < size["restart_edited_s"] <= size["restart_s"]
        assert 0 < size["burst_median_s"] <= size["burst_p99_s"] <= size["burst_max_s"]
    copies = [log for log in tmp_path.glob("operator-*.log") if "done-" in log.read_text()]
    assert not copies, "the operator has nothing to do for copies of finished jobs"
