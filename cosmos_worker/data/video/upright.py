"""Display matrices: how a stored picture is turned and mirrored to be upright. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Turn = tuple[int, int, int, int]
"""Signs (a, b, c, d) of a display matrix: a pixel at (column p, row q) is shown at (a p + c q, b p + d q)."""
UPRIGHT: Turn = (1, 0, 0, 1)
FIXED_POINT = 1 << 16


def matrix_parts(matrix: bytes) -> tuple[float, float, float, float]:
    """The numbers (a, b, c, d) of a display matrix of nine 32-bit integers, row by row."""
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5] / FIXED_POINT
    return float(a), float(b), float(c), float(d)


def turn_of(parts: tuple[float, float, float, float]) -> Turn | None:
    """The signs of a matrix that turns by a multiple of 90 degrees or mirrors; None for any other.

    A matrix of zeros is one that was never written: players turn nothing.
    """
    if not any(parts):
        return UPRIGHT
    limit = max(map(abs, parts)) / 100
    a, b, c, d = ((part > limit) - (part < -limit) for part in parts)
    if (a and d and not b and not c) or (b and c and not a and not d):
        return a, b, c, d
    return None


def turn_upright(picture: NDArray[np.uint8], turn: Turn) -> NDArray[np.uint8]:
    """A picture (H, W, 3) as it is shown; a view."""
    a, b, c, d = turn
    return picture[::d, ::a] if a else picture.swapaxes(0, 1)[::b, ::c]


def size_upright(height: int, width: int, turn: Turn) -> tuple[int, int]:
    """Rows and columns of a stored picture as it is shown."""
    return (height, width) if turn[0] else (width, height)
