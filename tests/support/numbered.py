"""Videos whose frames carry their number in the picture, and how it is read from a decoded frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from cosmos_worker.data.video import Frames, write_video

BITS = 8
HEIGHT, WIDTH = 32, 64


def numbered_frames(numbers: Iterable[int]) -> Frames:
    """Frames of 8 vertical bars, the bits of each number from high to low, white for 1; uint8 (T, 32, 64, 3)."""
    bits = [[number >> (BITS - 1 - bit) & 1 for bit in range(BITS)] for number in numbers]
    bars = np.repeat(np.array(bits, dtype=np.uint8) * 215 + 20, WIDTH // BITS, axis=1)
    shape = (len(bars), HEIGHT, WIDTH, 3)
    return np.ascontiguousarray(np.broadcast_to(bars[:, None, :, None], shape))


def numbers_of(frames: Frames) -> list[int]:
    """Numbers of frames of :func:`numbered_frames`, at any size."""
    found = []
    for frame in frames:
        width = frame.shape[1] / BITS
        row = frame[frame.shape[0] // 2].mean(axis=-1)
        bits = [row[int((bit + 0.5) * width)] > 128 for bit in range(BITS)]
        found.append(sum(int(bit) << (BITS - 1 - place) for place, bit in enumerate(bits)))
    return found


def write_numbered(path: Path, numbers: Iterable[int], fps: float = 10) -> Path:
    """An H.264 file of these frames."""
    write_video(path, numbered_frames(numbers), fps)
    return path


def write_numbered_av1(path: Path, numbers: Iterable[int], fps: int = 10) -> Path:
    """An AV1 file of these frames, encoded as LeRobot does: SVT-AV1 with a key frame every two frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=fps, options={"g": "2", "crf": "30"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for pixels in numbered_frames(numbers):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path
