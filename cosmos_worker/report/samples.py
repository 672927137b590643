"""Pictures and videos as data URIs, and the cards of sample videos that a training has written."""

from __future__ import annotations

import base64
import io
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cosmos_worker.data.index import read_index
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    write_video,
)
from cosmos_worker.data.video.fit import resize_frames
from cosmos_worker.errors import DataError
from cosmos_worker.report.collect import Card, Clip
from cosmos_worker.storage.volumes import (
    SAMPLED_WINDOWS_FILE,
    SAMPLES_FOLDER,
    TRUTH_FOLDER,
)

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


SHOWN_WINDOWS = 4
SHOWN_STEPS = 4
NUM_KNOWN = 1


def evenly(values: list[int], count: int) -> list[int]:
    """At most so many of the values, the first and the last among them."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def sample_cards(run: Path, dataset: Path) -> list[Card]:
    """A card per window with its ground truth and some of its samples; none if the training wrote none.

    Raises:
        DataError: a video or the index cannot be read.
    """
    folder = run / SAMPLES_FOLDER
    truths = sorted((folder / TRUTH_FOLDER).glob("*.mp4"), key=_position)[:SHOWN_WINDOWS]
    if not truths:
        return []
    sampled = _sampled_windows(folder, dataset, truths)
    cards = []
    for truth in (truth for truth in truths if truth.stem in sampled):
        window_id, caption = sampled[truth.stem]
        found = {int(path.parent.name[5:]): path for path in folder.glob(f"step_*/{truth.name}")}
        steps = evenly(sorted(found), SHOWN_STEPS)
        clips = [
            _clip("Ground truth", "truth", truth),
            *(_clip(f"Step {step}", "generated", found[step]) for step in steps),
        ]
        known = frame_uri(read_video(truth)[0])
        cards.append(Card(window_id, caption, known, clips))
    return cards


def _sampled_windows(
    folder: Path, dataset: Path, truths: Sequence[Path]
) -> dict[str, tuple[str, str]]:
    """Name of a video without suffix → its window and caption: as the training wrote them, else by position.

    Raises:
        DataError: the list of windows or the index cannot be read.
    """
    path = folder / SAMPLED_WINDOWS_FILE
    if path.is_file():
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            return {stem: (entry["window"], entry["caption"]) for stem, entry in written.items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: damaged ({error!r}); remove it and the videos beside it, and run the report again"
            ) from None
    index = read_index(dataset)
    windows = index.windows("val")
    found = {truth.stem: windows[_position(truth)] for truth in truths}
    return {
        stem: (window.window_id, index.clip(window.clip_id).caption)
        for stem, window in found.items()
    }


def _position(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _clip(label: str, kind: str, path: Path) -> Clip:
    strip = strip_uri(read_video(path), NUM_KNOWN)
    return Clip(label, kind, video_uri(path), strip, "", "")
