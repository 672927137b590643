from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from support.generation import moving_square

from cosmos_worker.data.video.files import (
    read_video,
    write_video,
)
from cosmos_worker.report import samples


def test_small_video_is_embedded_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    write_video(path, moving_square(), 4.0)

    content = base64.b64decode(samples.video_uri(path).partition(",")[2])

    assert content == path.read_bytes()


def test_large_video_is_embedded_as_a_preview(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MAX_EMBEDDED_BYTES", 100)
    monkeypatch.setattr(samples, "PREVIEW_WIDTH", 32)
    path, preview = tmp_path / "video.mp4", tmp_path / "preview.mp4"
    write_video(path, moving_square(), 4.0)

    preview.write_bytes(base64.b64decode(samples.video_uri(path).partition(",")[2]))

    assert read_video(preview).shape == (17, 16, 32, 3)


@pytest.mark.parametrize(
    ("num_frames", "num_known", "wanted"),
    [(17, 1, [4, 7, 10, 13, 16]), (121, 9, [31, 53, 76, 98, 120]), (3, 1, [1, 2]), (2, 1, [1])],
)
def test_strip_ends_with_the_last_frame(num_frames: int, num_known: int, wanted: list[int]) -> None:
    assert samples.strip_positions(num_frames, num_known) == wanted


def test_strip_of_a_high_video_is_scaled_down() -> None:
    frames = np.zeros((9, 256, 320, 3), dtype=np.uint8)

    content = base64.b64decode(samples.strip_uri(frames, 1).partition(",")[2])

    width = int.from_bytes(content[16:20], "big")
    assert width == 5 * 160 + 4 * samples.STRIP_GAP
