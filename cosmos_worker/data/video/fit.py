"""Frames brought to the size of a window: stretched, cropped or padded (``config.stages.Fit``).

Crop and Pad resize first, both sides by one factor, and then cut or fill: an antialiased resize sees the pixels
behind the cut, and the aspect ratio is off by half a pixel of the window at most. Frames of the window's aspect ratio
are resized alike by all three.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.config.choices import Fit

Frames = NDArray[np.uint8]


def scaled_size(rows: int, columns: int, height: int, width: int, fit: Fit) -> tuple[int, int]:
    """Rows and columns of the resized frame before it is cut or filled.

    One side is exactly the window's; the other is rounded to the nearest pixel, halves up, at least 1.
    """
    if fit == "stretch":
        return height, width
    is_wider = columns * height > width * rows
    if is_wider == (fit == "crop"):
        return height, max(1, (2 * columns * height + rows) // (2 * rows))
    return max(1, (2 * rows * width + columns) // (2 * columns)), width


def cut_or_fill(video: Tensor, height: int, width: int, fill: float) -> Tensor:
    """Cut and fill the last two dimensions around their middle.

    Of an odd number of pixels the left or upper part is the smaller.

    Args:
        video: (..., rows, columns).
        height: wanted rows.
        width: wanted columns.
        fill: value of the borders.

    Returns:
        (..., height, width); the same tensor if it has that size already.
    """
    for dim, wanted in ((-2, height), (-1, width)):
        size = video.shape[dim]
        if size > wanted:
            video = video.narrow(dim, (size - wanted) // 2, wanted)
        elif size < wanted:
            shape = list(video.shape)
            shape[dim] = wanted
            filled = video.new_full(shape, fill)
            filled.narrow(dim, (wanted - size) // 2, size).copy_(video)
            video = filled
    return video


def resize_frames(frames: Frames, height: int, width: int, fit: Fit = "stretch") -> Frames:
    """Antialiased bilinear resize, then the cut or the black borders of ``fit``.

    Args:
        frames: uint8 (T, H, W, 3).
        height: wanted rows.
        width: wanted columns.
        fit: how another aspect ratio is brought to that size.

    Returns:
        uint8 (T, height, width, 3); the same array if it has that size already.

    Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py: per frame, in float32, truncated to uint8.
    Differs: the reference always stretches.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    size = scaled_size(frames.shape[1], frames.shape[2], height, width, fit)
    resized = np.empty((len(frames), height, width, 3), dtype=np.uint8)
    for index, frame in enumerate(frames):
        image_CHW = torch.from_numpy(frame).permute(2, 0, 1)
        if size != frame.shape[:2]:
            image_CHW = _resize_bilinear(image_CHW, size)
        resized[index] = cut_or_fill(image_CHW, height, width, 0).permute(1, 2, 0).numpy()
    return resized


def _resize_bilinear(image_CHW: Tensor, size: tuple[int, int]) -> Tensor:
    image_1CHW = torch.nn.functional.interpolate(
        image_CHW[None].float() / 255, size=size, mode="bilinear", antialias=True
    )
    return (image_1CHW[0] * 255).clamp(0, 255).to(torch.uint8)
