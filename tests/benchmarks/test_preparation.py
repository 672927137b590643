"""The benchmark of the preparation: rounds, rates, and that the reference's way reads the same windows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from preparation import EXPERIMENT, check, encode_in_the_loop, measure, print_rates

from cosmos_worker.data.index import read_index
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer


class Noted:
    """A tokenizer that notes what it is given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, video_BCTHW: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(video_BCTHW.shape))
        return video_BCTHW


def test_every_round_begins_with_another_way_in_a_folder_of_its_own() -> None:
    seen: list[tuple[str, Path]] = []

    def way(name: str) -> Callable[[Path], float]:
        def run(folder: Path) -> float:
            assert not list(folder.iterdir())
            seen.append((name, folder))
            return len(seen)

        return run

    seconds = measure({"a": way("a"), "b": way("b")}, 2)

    assert [name for name, _ in seen] == ["a", "b", "b", "a"]
    assert len({folder for _, folder in seen}) == 4
    assert seconds == {"a": [1, 4], "b": [2, 3]}


def test_rates_are_those_of_the_median(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates("clips", 10, {"check": [1.0, 2.0, 50.0]})

    assert capsys.readouterr().out == "| check | 10 clips | 5.0 clips/s |\n"


def test_reference_encodes_each_window_alone(tmp_path: Path) -> None:
    check(1)(tmp_path)
    index = read_index(tmp_path / "index")
    windows = index.windows("train")[:2]
    tokenizer = Noted()

    encode_in_the_loop(index, windows, cast("VideoTokenizer", tokenizer))(tmp_path)

    video = EXPERIMENT.video
    assert tokenizer.shapes == 2 * [(1, 3, video.num_pixel_frames, video.height, video.width)]
