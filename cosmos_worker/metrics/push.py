"""The metric of the pushing example: a generated video follows its caption if the named cube moves as it says.

Captions are "push the {colour} cube {direction}". Cubes are found by their colour alone, so the same code judges
recorded and generated videos. Uses numpy only: must not import torch.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = ("left", "right", "away", "toward")
MIN_FOLLOW_PX = 8.0
WINDOW_PX = 20  # a cube's size in the pictures of the example
MIN_PIXELS = 25
MIN_CUBE_PIXELS = 100  # in the first frame: another cube, not a stray patch
NUM_END_FRAMES = 3


@dataclass(frozen=True)
class HueRange:
    """Colours counted as one cube colour: hue in degrees, least saturation and value (0 to 1)."""

    low_deg: float
    high_deg: float
    min_saturation: float
    min_value: float


COLOURS: dict[str, HueRange] = {
    "red": HueRange(-22.0, 13.0, 0.66, 0.30),
    "green": HueRange(105.0, 170.0, 0.50, 0.20),
    "blue": HueRange(205.0, 250.0, 0.52, 0.30),
    "yellow": HueRange(42.0, 68.0, 0.62, 0.45),
    "purple": HueRange(266.0, 312.0, 0.45, 0.25),
}
_Hsv = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
_CAPTION = re.compile(rf"push the ({'|'.join(COLOURS)}) cube ({'|'.join(DIRECTIONS)})")


@dataclass(frozen=True)
class PushInstruction:
    """The cube and the direction that a caption names."""

    colour: str
    direction: str


@dataclass(frozen=True)
class PushScore:
    """The movement of the cubes in a video.

    Attributes:
        displacement_px: (dx, dy) of the named cube, x to the right, y down; nan if not tracked.
        direction: where it moved: left, right, away (up), toward (down), or "none".
        follows: true if the video does what the caption says.
        other_displacements_px: distance that every other cube of the first frame has moved, by colour; nan if it is
            not seen at the end.
    """

    displacement_px: tuple[float, float]
    direction: str
    follows: bool
    other_displacements_px: dict[str, float]


def parse_instruction(caption: str) -> PushInstruction | None:
    """Read "push the red cube left"; None for any other sentence."""
    match = _CAPTION.fullmatch(caption.strip().rstrip(".").lower())
    return PushInstruction(match[1], match[2]) if match else None


def _check_frames(frames_THWC: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the frames are uint8 RGB."""
    if frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3 or frames_THWC.dtype != np.uint8:
        raise ValueError(
            f"frames: got {frames_THWC.dtype} {frames_THWC.shape}; pass uint8 of shape (T, H, W, 3)"
        )


def _split_hsv(frames_THWC: NDArray[np.uint8]) -> _Hsv:
    """Hue in degrees (-60 to 300), saturation and value (0 to 1), each (T, H, W)."""
    red, green, blue = np.moveaxis(frames_THWC.astype(np.float32) / 255, -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    safe = np.maximum(chroma, 1e-6)
    sextant = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return sextant * 60, chroma / np.maximum(value, 1e-6), value


def _mask_colour(hsv: _Hsv, colour: str) -> NDArray[np.bool_]:
    """Pixels (T, H, W) whose hue, saturation and value belong to a cube colour."""
    hue, saturation, value = hsv
    limits = COLOURS[colour]
    centre_deg = (limits.low_deg + limits.high_deg) / 2
    distance_deg = np.abs((hue - centre_deg + 180) % 360 - 180)
    mask: NDArray[np.bool_] = (
        (distance_deg <= (limits.high_deg - limits.low_deg) / 2)
        & (saturation >= limits.min_saturation)
        & (value >= limits.min_value)
    )
    return mask


def _box_sums(mask_THW: NDArray[np.bool_], size: int) -> NDArray[np.int32]:
    """Number of set pixels in the square of odd width around every pixel."""
    reach = size // 2
    padded = np.pad(mask_THW, ((0, 0), (reach + 1, reach), (reach + 1, reach)))
    total = padded.astype(np.int32).cumsum(axis=1).cumsum(axis=2)
    width = 2 * reach + 1
    sums: NDArray[np.int32] = (
        total[:, width:, width:]
        - total[:, :-width, width:]
        - total[:, width:, :-width]
        + total[:, :-width, :-width]
    )
    return sums


def track_centroid(
    frames_THWC: NDArray[np.uint8], colour: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Find the cube of one colour in every frame.

    The cube is where a cube-sized window holds most pixels of the colour, so stray pixels
    elsewhere (noise, the orange cuff) do not shift it.

    Args:
        frames_THWC: uint8 RGB, any size.
        colour: a key of `COLOURS`.

    Returns:
        Centroids (T, 2) as (x, y) in pixels, nan where the cube is invisible, and the number of
        its pixels (T,).

    Raises:
        ValueError: if the frames are not uint8 RGB or the colour is unknown.
    """
    _check_frames(frames_THWC)
    if colour not in COLOURS:
        raise ValueError(f"colour: got {colour!r}; use one of {', '.join(COLOURS)}")
    return _track(_mask_colour(_split_hsv(frames_THWC), colour))


def _track(
    mask_THW: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centroid and number of the pixels in and around the fullest window of every frame."""
    sums_THW = _box_sums(mask_THW, WINDOW_PX)
    centroids = np.full((len(mask_THW), 2), np.nan)
    counts = np.zeros(len(mask_THW), dtype=np.int64)
    reach = WINDOW_PX * 3 // 4
    for frame, (mask, sums) in enumerate(zip(mask_THW, sums_THW, strict=True)):
        row, column = np.unravel_index(int(sums.argmax()), sums.shape)
        top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
        window = mask[top : int(row) + reach + 1, left : int(column) + reach + 1]
        rows, columns = np.nonzero(window)
        counts[frame] = len(rows)
        if len(rows) >= MIN_PIXELS:
            centroids[frame] = (left + columns.mean(), top + rows.mean())
    return centroids, counts


def _displacement(centroids: NDArray[np.float64]) -> tuple[float, float]:
    """From the first frame to the mean of the last frames; nan if invisible there."""
    end = centroids[-NUM_END_FRAMES:]
    end = end[~np.isnan(end[:, 0])]
    if np.isnan(centroids[0, 0]) or not len(end):
        return math.nan, math.nan
    dx, dy = end.mean(axis=0) - centroids[0]
    return float(dx), float(dy)


def _name_direction(dx: float, dy: float) -> str:
    """Dominant direction of a displacement, "none" if it is short or unknown."""
    if not max(abs(dx), abs(dy)) >= MIN_FOLLOW_PX:  # also true for nan
        return "none"
    if abs(dx) >= abs(dy):
        return "right" if dx > 0 else "left"
    return "toward" if dy > 0 else "away"


def score_push(frames_THWC: NDArray[np.uint8], caption: str) -> PushScore:
    """Judge one video against its caption.

    It follows if the named cube moves at least 8 px, mostly in the named direction, and no other
    cube of the first frame moves farther than the named one.

    Raises:
        ValueError: if the caption is not a push instruction or the frames are not uint8 RGB.
    """
    instruction = parse_instruction(caption)
    if instruction is None:
        raise ValueError(
            f"caption: got {caption!r}; write 'push the {{{'|'.join(COLOURS)}}} cube "
            f"{{{'|'.join(DIRECTIONS)}}}'"
        )
    _check_frames(frames_THWC)
    hsv = _split_hsv(frames_THWC)
    dx, dy = _displacement(_track(_mask_colour(hsv, instruction.colour))[0])
    others: dict[str, float] = {}
    for colour in COLOURS:
        if colour == instruction.colour:
            continue
        mask_THW = _mask_colour(hsv, colour)
        if mask_THW[0].sum() < MIN_CUBE_PIXELS:
            continue
        centroids, counts = _track(mask_THW)
        if counts[0] >= MIN_CUBE_PIXELS:
            others[colour] = math.hypot(*_displacement(centroids))
    direction = _name_direction(dx, dy)
    farthest = max((way for way in others.values() if not math.isnan(way)), default=0.0)
    follows = direction == instruction.direction and farthest <= math.hypot(dx, dy)
    return PushScore((dx, dy), direction, follows, others)
