"""Frames at the size of a window: stretched, cropped, padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.clips import make_frames

from cosmos_worker.data.video.fit import (
    cut_or_fill,
    resize_frames,
    scaled_size,
)

FITS = ("stretch", "crop", "pad")


def test_resize_frames_averages_when_shrinking():
    frames = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    frames[:, ::2] = 200

    small = resize_frames(frames, 8, 8)

    # Antialiased: every row is near the mean 100, where plain bilinear sampling would keep the stripes.
    assert np.abs(small[:, 1:-1].astype(int) - 100).max() <= 8


def test_resize_frames_truncates_like_the_reference():
    frames = np.full((1, 16, 16, 3), 77, dtype=np.uint8)
    frames[0, 0, 0] = 78

    assert resize_frames(frames, 16, 16) is frames
    assert resize_frames(frames, 8, 8)[0, 0, 0, 0] == 77


def test_scaled_size_keeps_one_side_of_the_window():
    portrait, panorama = (640, 360), (100, 301)

    assert scaled_size(*portrait, 64, 96, "stretch") == (64, 96)
    assert scaled_size(*portrait, 64, 96, "crop") == (171, 96)  # 96 * 640 / 360 = 170.67
    assert scaled_size(*portrait, 64, 96, "pad") == (64, 36)
    assert scaled_size(*panorama, 64, 96, "crop") == (64, 193)  # 192.64
    assert scaled_size(*panorama, 64, 96, "pad") == (32, 96)  # 31.89
    assert scaled_size(1, 4000, 64, 96, "pad") == (1, 96)


@pytest.mark.parametrize("size", [(32, 48), (128, 192), (64, 96), (80, 120)])
def test_frames_of_the_windows_aspect_ratio_are_resized_alike_by_all(size: tuple[int, int]):
    frames = make_frames(2, *size)

    stretched, cropped, padded = (resize_frames(frames, 64, 96, fit) for fit in FITS)

    np.testing.assert_array_equal(cropped, stretched)
    np.testing.assert_array_equal(padded, stretched)


def test_crop_cuts_the_middle_out_of_the_resized_frame():
    frames = make_frames(2, 40, 50)  # to 64 x 80: 16 columns protrude

    cropped = resize_frames(frames, 64, 64, "crop")

    np.testing.assert_array_equal(cropped, resize_frames(frames, 64, 80)[:, :, 8:72])


def test_crop_takes_pixels_as_they_are_where_one_side_fits():
    frames = make_frames(2, 32, 51)

    np.testing.assert_array_equal(resize_frames(frames, 32, 48, "crop"), frames[:, :, 1:49])


def test_pad_fills_with_black_around_the_resized_frame():
    frames = make_frames(2, 40, 20, shade=90)  # to 64 x 32

    padded = resize_frames(frames, 64, 48, "pad")

    np.testing.assert_array_equal(padded[:, :, 8:40], resize_frames(frames, 64, 32))
    assert not padded[:, :, :8].any()
    assert not padded[:, :, 40:].any()


def test_the_left_and_upper_part_of_an_odd_border_is_the_smaller():
    frame = torch.arange(1, 4)[None]

    assert cut_or_fill(frame, 2, 6, 0).tolist() == [[0, 1, 2, 3, 0, 0], [0] * 6]
    assert cut_or_fill(torch.arange(6)[None], 1, 3, 0).tolist() == [[1, 2, 3]]
