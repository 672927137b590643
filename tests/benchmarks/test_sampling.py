"""The benchmark of sampling runs to its end, and all of its ways make the same video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sampling


@pytest.mark.timeout(300)
def test_ours_makes_the_video_of_diffusers_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ["--tiny", "--without", "compiled", "--dtype", "float32"]

    sampling.main([*options, "--rounds", "1", "--warm-up", "0", "--json", str(file)])

    (comparison,) = json.loads(file.read_text())["comparisons"]
    assert set(comparison["speed"]) == {
        "diffusers, eager", "ours, two evaluations a step", "ours, eager",
    }  # fmt: skip


def test_another_video_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAME_PIXELS", 1e-9)

    with pytest.raises(AssertionError, match="ours, two evaluations a step makes another video"):
        sampling.ways_of(sampling.TINY, sampling.torch.float32, compiled=False)
