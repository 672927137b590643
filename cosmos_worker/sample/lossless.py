"""Frames on disk that come back bit by bit, with a note; a file is whole or absent, and damage is seen.

FFV1 in Matroska: players show it. Frames are uint8 RGB arrays (T, H, W, 3).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import atomic_write

PIXELS = "bgr0"
"""RGB in another order, which FFV1 takes as it is."""
NOTE = "COMMENT"
"""Entry of the file: JSON of the note and the SHA-256 of the frames."""


def write_lossless(
    path: Path, frames_THWC: NDArray[np.uint8], fps: float, note: Mapping[str, Any]
) -> None:
    """Write frames and a note; encoded in memory, so that a full disk or a stop leaves nothing.

    Args:
        path: .mkv file, replaced if it exists.
        frames_THWC: uint8, T > 0.
        fps: frames per second, for those who look at it.
        note: JSON values.
    """
    comment = json.dumps({"sha256": _digest(frames_THWC), "note": dict(note)})
    content = io.BytesIO()
    with av.open(content, "w", format="matroska") as container:
        container.metadata[NOTE] = comment
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = PIXELS
        for frame in frames_THWC:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=PIXELS)))
        container.mux(stream.encode(None))
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def read_lossless(path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Frames and note of a file of `write_lossless`, checked against the digest in it.

    Raises:
        DataError: damaged, or another file.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with av.open(content, "r", format="matroska") as container:
            comment = json.loads(container.metadata[NOTE])
            decoded = container.decode(video=0)
            pictures = [frame.to_ndarray(format="rgb24") for frame in decoded]
            frames: NDArray[np.uint8] = np.stack(pictures).astype(np.uint8, copy=False)
        wanted, note = comment["sha256"], comment["note"]
    except (av.FFmpegError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: damaged ({reason}); remove the file") from None
    if _digest(frames) != wanted:
        raise DataError(
            f"{path}: damaged (frames are not those that were written); remove the file"
        )
    return frames, note


def _digest(frames_THWC: NDArray[np.uint8]) -> str:
    """SHA-256 of sizes and pixels."""
    digest = hashlib.sha256(repr(frames_THWC.shape).encode())
    digest.update(np.ascontiguousarray(frames_THWC).reshape(-1).data)
    return digest.hexdigest()
