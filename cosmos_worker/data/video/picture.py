"""A decoded frame as the picture that players show: turned upright, in colours that can be converted to RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.data.video.problems import UnreadableVideo

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of high dynamic range (ITU-T H.273): as RGB of 8 bits they would look washed out."""
MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
"""Matrix coefficients (ITU-T H.273) that swscale converts to RGB; 2 = unspecified, which is converted as BT.601."""
INTERLACED = "interlaced, both fields stay in one frame (ffmpeg -vf yadif separates them)"
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


def display_turn(path: Path, frame: Any) -> Turn:  # noqa: ANN401 - PyAV has no public types
    """The turn or flip by which a frame becomes upright.

    Raises:
        UnreadableVideo: a turn by another angle than multiples of 90 degrees.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    parts = matrix_parts(bytes(matrix))
    turn = turn_of(parts)
    if turn is None:
        shown = ", ".join(f"{part:.3g}" for part in parts)
        value = f"its display matrix ({shown}) is no turn by 90, 180 or 270 degrees and no flip"
        raise UnreadableVideo(path, value)
    return turn


def refuse_other_turn(path: Path, number: int, turn: Turn, first: Turn) -> None:
    """Refuse a frame that is not turned as the first one is: players disagree on such files.

    Raises:
        UnreadableVideo: another turn.
    """
    if turn != first:
        value = f"frame {number} is to be turned otherwise than the first one"
        raise UnreadableVideo(path, value)


# --- colours ---------------------------------------------------------------------------------


def refuse_colours(path: Path, frame: Any) -> None:  # noqa: ANN401 - PyAV has no public types
    """Refuse a frame that would get wrong colours.

    Raises:
        UnreadableVideo: high dynamic range, or a matrix that swscale cannot convert.
    """
    transfer = HDR_TRANSFERS.get(frame.color_trc)
    if transfer is not None:
        value = f"high dynamic range ({transfer}), which cannot be shown as RGB of 8 bits"
        raise UnreadableVideo(path, value, "high_dynamic_range")
    if frame.colorspace not in MATRICES:
        value = f"colour matrix {frame.colorspace} of ITU-T H.273, which cannot be converted to RGB"
        raise UnreadableVideo(path, value)


def frame_notes(frame: Any) -> list[str]:  # noqa: ANN401 - PyAV has no public types
    """Short sentences about what a frame loses as an RGB picture."""
    notes = []
    if frame.interlaced_frame:
        notes.append(INTERLACED)
    if any(component.is_alpha for component in frame.format.components):
        notes.append("transparent, its alpha channel is ignored")
    return notes
