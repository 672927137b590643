"""Small real videos and datasets on disk."""

from __future__ import annotations

import errno
import io
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cosmos_worker.data.video.files import (
    Frames,
    write_video,
)


def make_frames(frames: int = 17, height: int = 32, width: int = 48, *, shade: int = 60) -> Frames:
    """A red square that moves right over a gradient, uint8 (T, H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    picture = np.stack([rows * 2, columns * 2, np.full_like(rows, shade)], axis=-1)
    video = np.repeat(picture[None].clip(0, 255).astype(np.uint8), frames, axis=0)
    side = max(2, height // 4)
    for index in range(frames):
        left = index * (width - side) // max(1, frames - 1)
        video[index, side : 2 * side, left : left + side] = (230, 30, 30)
    return video


class _FailingFile(io.RawIOBase):
    """File object that gives some bytes, then fails like a volume that has gone."""

    def __init__(self) -> None:
        self._num_reads = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._num_reads += 1
        if self._num_reads > 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return len(buffer)


def fail_reads_of(monkeypatch: pytest.MonkeyPatch, broken: Path) -> None:
    """Let plain reads of a file end with EIO after some bytes; decoders go on to see what is on disk."""
    true = Path.open

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        return _FailingFile() if path == broken else true(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)


def write_clip(
    path: Path,
    frames: int = 17,
    height: int = 32,
    width: int = 48,
    fps: float = 10,
    *,
    shade: int = 60,
) -> Path:
    """A real MP4 of a moving square."""
    write_video(path, make_frames(frames, height, width, shade=shade), fps)
    return path


def write_clip_with_times(path: Path, times: list[int], ticks_per_second: int = 100) -> Path:
    """An MP4 whose frame i is shown at times[i] ticks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks_per_second)
        for time, pixels in zip(times, make_frames(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, ticks_per_second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def annotation(
    episode: str, split: str = "train", frames: int = 17, **fields: Any
) -> dict[str, Any]:
    """A bridge annotation; ``fields`` replace or, with the value ..., remove entries."""
    document: dict[str, Any] = {
        "episode_id": episode,
        "texts": [f"push the {episode} cube left"],
        "videos": [{"video_path": f"videos/{split}/{episode}/rgb.mp4"}],
        "state": [[0.0] * 6 for _ in range(frames)],
        "continuous_gripper_state": [0.0] * frames,
        **fields,
    }
    return {key: value for key, value in document.items() if value is not ...}


def add_bridge_clip(
    root: Path, episode: str, split: str = "train", *, frames: int = 17, **fields: Any
) -> Path:
    """One clip with its annotation; returns the video's path."""
    path = root / "annotation" / split / f"{episode}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(annotation(episode, split, frames, **fields)), encoding="utf-8")
    return write_clip(root / "videos" / split / episode / "rgb.mp4", frames)


def write_bridge_dataset(root: Path, train: int = 3, val: int = 1, frames: int = 17) -> Path:
    """A sound dataset in the bridge layout: episodes train0, train1 .., val0 .."""
    for split, number in (("train", train), ("val", val)):
        for index in range(number):
            add_bridge_clip(root, f"{split}{index}", split, frames=frames)
    return root


def add_folder_clip(root: Path, stem: str, caption: str | bytes | None, frames: int = 17) -> Path:
    """One video with its caption file (none with None); returns the video's path."""
    if caption is not None:
        path = root / "metas" / f"{stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(caption if isinstance(caption, bytes) else caption.encode())
    return write_clip(root / "videos" / f"{stem}.mp4", frames)


def write_videos_dataset(root: Path, clips: int = 3, frames: int = 17) -> Path:
    """A sound dataset in the folder layout: clip0, clip1 .."""
    for index in range(clips):
        add_folder_clip(root, f"clip{index}", f"a square moves, take {index}\n", frames)
    return root
