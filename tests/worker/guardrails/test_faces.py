"""Blurred faces: exactly the box around each planted face is pixelated, and no other pixel is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.faces import BOX, RED, face_state, grey_frames, write_face_detector

from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.faces import (
    FaceBlur,
    pixelate,
    whole_boxes,
)
from cosmos_worker.storage.volumes import FACE_FILE

CPU = torch.device("cpu")
HEIGHT, WIDTH = 64, 128
"""Powers of two, so that shares of them are exact."""


@pytest.fixture(scope="module")
def blur(tmp_path_factory: pytest.TempPathFactory) -> FaceBlur:
    folder = tmp_path_factory.mktemp("guardrails")
    write_face_detector(folder / FACE_FILE)
    return FaceBlur(folder, CPU)


def test_exactly_the_box_of_a_face_is_blurred(blur: FaceBlur) -> None:
    frames = grey_frames(3, HEIGHT, WIDTH)
    frames[1, 32, 80] = RED
    given = frames.copy()

    blurred, num_frames = blur.blur(frames)

    rows, columns = slice(36 - BOX // 2, 36 + BOX // 2), slice(84 - BOX // 2, 84 + BOX // 2)
    wanted = given.copy()
    wanted[1, rows, columns] = pixelate(given[1, rows, columns])
    assert num_frames == 1
    assert np.array_equal(blurred, wanted)
    assert not np.array_equal(blurred[1], given[1])
    assert np.array_equal(frames, given)  # the caller's own stay


def test_every_face_of_a_frame_is_blurred_up_to_its_border(blur: FaceBlur) -> None:
    frames = grey_frames(1, HEIGHT, WIDTH)
    given = frames.copy()
    frames[0, 0, 0] = frames[0, 56, 120] = RED

    blurred, num_frames = blur.blur(frames)

    changed = (blurred != given).any(axis=-1)[0]
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[:20, :20] = inside[44:, 108:] = True
    assert num_frames == 1
    assert not changed[~inside].any()
    assert changed[inside].mean() > 0.9
    assert len(np.unique(blurred[0, :20, :20].reshape(-1, 3), axis=0)) <= 25


def test_small_faces_stay(tmp_path: Path) -> None:
    write_face_detector(tmp_path / FACE_FILE, face_state(small=True))
    frames = grey_frames(1, HEIGHT, WIDTH)
    frames[0, 32, 80] = RED

    blurred, num_frames = FaceBlur(tmp_path, CPU).blur(frames)

    assert num_frames == 0
    assert np.array_equal(blurred, frames)


def test_boxes_are_cut_to_whole_pixels_of_the_frame() -> None:
    boxes = torch.tensor(
        [
            [10.9, 5.2, 31.1, 25.9],  # 21 and 20 pixels
            [10.0, 5.0, 29.9, 40.0],  # 19 wide
            [-30.5, 10, 8, 90],
            [130.0, 10, 160, 40],  # beyond the frame
        ]
    )

    assert whole_boxes(boxes, HEIGHT, WIDTH) == [(10, 5, 31, 25), (0, 10, 8, 64)]


def test_blocks_have_the_colour_in_their_middle() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (10, 20, 3), np.uint8)
    wide = picture.astype(int)
    middles = sum(wide[i::2, j::4] for i in (0, 1) for j in (1, 2))  # 2 of 2 rows, 2 of 4 columns

    found = pixelate(picture)

    wanted = ((middles + 2) // 4).repeat(2, axis=0).repeat(4, axis=1)
    assert np.array_equal(found, wanted)


def test_a_frame_that_cannot_be_searched_is_an_error(tmp_path: Path) -> None:
    state = face_state()
    state["ClassHead.2.conv1x1.bias"] = torch.full((4,), float("nan"))
    write_face_detector(tmp_path / FACE_FILE, state)

    with pytest.raises(DataError, match="face blur: frame 0 has no finite scores"):
        FaceBlur(tmp_path, CPU).blur(grey_frames(1, HEIGHT, WIDTH))
