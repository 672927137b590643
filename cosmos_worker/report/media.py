"""Pictures and videos as data URIs, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
import math
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    write_video,
)
from cosmos_worker.data.video.fit import resize_frames

Frames = NDArray[np.uint8]

STRIP_FRAMES = 5
STRIP_HEIGHT = 128
"""Rows of a strip's pictures; lower videos stay as they are."""
STRIP_GAP = 3
MAX_EMBEDDED_BYTES = 1_500_000
"""Larger videos are embedded as a preview."""
PREVIEW_WIDTH = 480


def data_uri(kind: str, content: bytes) -> str:
    """data:KIND;base64,..."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png_uri(picture_HWC: Frames) -> str:
    """A picture as PNG with a palette of its own, a third of the size of a full PNG."""
    stream = io.BytesIO()
    image = Image.fromarray(picture_HWC).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
    image.save(stream, format="PNG", optimize=True)
    return data_uri("image/png", stream.getvalue())


def _fit_height(frames_THWC: Frames, height: int) -> Frames:
    rows, columns = frames_THWC.shape[1:3]
    if rows <= height:
        return frames_THWC
    return resize_frames(frames_THWC, height, max(1, round(columns * height / rows)))


def frame_uri(frame_HWC: Frames) -> str:
    """One frame as PNG, not higher than a strip."""
    return png_uri(_fit_height(frame_HWC[None], STRIP_HEIGHT)[0])


def strip_positions(num_frames: int, num_known: int) -> list[int]:
    """Frames of a strip: evenly spaced over the generated ones, the last one included."""
    total = num_frames - num_known
    count = min(STRIP_FRAMES, total)
    return [num_known + math.ceil(k * total / count) - 1 for k in range(1, count + 1)]


def strip_uri(frames_THWC: Frames, num_known: int) -> str:
    """A few of the generated frames side by side, as one PNG; gaps are white."""
    positions = strip_positions(len(frames_THWC), num_known)
    shown = _fit_height(frames_THWC[positions], STRIP_HEIGHT)
    padded = np.pad(shown, ((0, 0), (0, 0), (0, STRIP_GAP), (0, 0)), constant_values=255)
    return png_uri(np.concatenate(list(padded), axis=1)[:, :-STRIP_GAP])


def _encode(frames_THWC: Frames, fps: float) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames_THWC, fps)
        return path.read_bytes()


def video_uri(path: Path) -> str:
    """A written video, byte for byte; a large one as a preview of lower resolution."""
    if path.stat().st_size <= MAX_EMBEDDED_BYTES:
        return data_uri("video/mp4", path.read_bytes())
    frames = read_video(path)
    rows, columns = frames.shape[1:3]
    width = min(columns, PREVIEW_WIDTH)
    height = max(2, round(rows * width / columns / 2) * 2)
    return frames_video_uri(resize_frames(frames, height, width), open_video(path).fps)


def frames_video_uri(frames_THWC: Frames, fps: float) -> str:
    """Frames as a video that browsers play, whatever codec they came from."""
    return data_uri("video/mp4", _encode(frames_THWC, fps))
