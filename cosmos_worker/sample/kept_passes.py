"""Finished passes of unfinished videos on disk, without loss: the next attempt begins after the last of them.

FFV1 in Matroska: players show it. Frames are uint8 RGB arrays (T, H, W, 3).

``<target>/.passes/<key>/001.mkv``, ``002.mkv`` ... hold what each pass has added to the videos of a batch, without
loss. The key stands for everything that decides these frames, and for who shares the batch. The last pass is not
kept, as its videos are written at once. Knows nothing of the processes that share a video: one of them keeps.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import DataError
from cosmos_worker.sample.passes import Frames, num_added_frames
from cosmos_worker.sample.records import Record
from cosmos_worker.storage.volumes import atomic_write, content_key

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


logger = logging.getLogger(__name__)

FOLDER = ".passes"


def batch_key(requests: Sequence[Record], config: GenerateConfig, dtype: torch.dtype) -> str:
    """Key of the frames of a batch.

    Args:
        requests: of its videos in order, final prompts included.
        config: the stage's document.
        dtype: of the network's matrix products.
    """
    tokenizer = config.tokenizer.model_dump(mode="json", exclude={"batch_size"})
    return content_key({"requests": list(requests), "tokenizer": tokenizer, "dtype": str(dtype)})


def remove_others(target: Path, keys: Collection[str]) -> None:
    """Remove what was kept of batches that are not among these: of other prompts, weights or options, or finished."""
    for folder in sorted((target / FOLDER).glob("*")):
        if folder.name not in keys:
            logger.info("removed passes of another request folder=%s", folder)
            shutil.rmtree(folder)


def remove_all(target: Path) -> None:
    """Remove everything, as all videos are there."""
    if (target / FOLDER).exists():
        shutil.rmtree(target / FOLDER)


@dataclass
class KeptPasses:
    """What is kept of one batch.

    Attributes:
        folder: of the batch; created with its first pass.
        num_videos: B.
        sampling: sizes and number of passes.
        seconds: that the kept passes have taken, in all attempts.
        count: passes that are kept, one after the other.
    """

    folder: Path
    num_videos: int
    sampling: SamplingConfig
    seconds: float = 0.0
    count: int = 0
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, target: Path, key: str, num_videos: int, sampling: SamplingConfig) -> KeptPasses:
        """Those of a batch; nothing is read yet."""
        return cls(target / FOLDER / key, num_videos, sampling)

    def load(self) -> list[Frames]:
        """What each pass has added, uint8 (B, T, H, W, 3), up to the first pass that is absent or damaged.

        A damaged pass and those after it are removed, with a warning; so are half-written files.
        """
        for rest in self.folder.glob(".*.tmp"):
            rest.unlink()  # of a process that was killed
        found = []
        for number in range(self.sampling.num_passes - 1):
            if not self._path(number).is_file():
                break
            try:
                found.append(self._read(number))
            except DataError as error:
                logger.warning("%s; pass %d and those after it are made again", error, number + 1)
                self._drop_from(number)
                break
        self.count = len(found)
        if found:
            total = self.sampling.num_passes
            logger.info("continue kept_passes=%d/%d folder=%s", self.count, total, self.folder)
        self._since = time.monotonic()
        return found

    def stand_in(self, count: int) -> list[Frames]:
        """Black frames in place of `load`'s, for a process that only helps to compute; they take no memory."""
        return [np.broadcast_to(np.uint8(0), self._shape(number)) for number in range(count)]

    def add(self, number: int, frames_BTHWC: Frames) -> None:
        """Keep what a pass has added; one that does not follow the kept ones is of no use, and left out.

        Args:
            number: of the pass, from 0.
            frames_BTHWC: its frames without the known ones, or all of the first pass.
        """
        if number != self.count:
            return
        now = time.monotonic()
        frames = frames_BTHWC.reshape(-1, *frames_BTHWC.shape[2:])
        note = {"seconds": round(now - self._since, 3)}
        write_lossless(self._path(number), frames, self.sampling.fps, note)
        self.seconds += now - self._since
        self.count, self._since = self.count + 1, time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds that the batch has taken until now, those of the kept passes in earlier attempts included."""
        return self.seconds + time.monotonic() - self._since

    def remove(self) -> None:
        """Remove them, as all videos of the batch are written."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number + 1:03d}.mkv"

    def _shape(self, number: int) -> tuple[int, int, int, int, int]:
        sampling = self.sampling
        num_frames = num_added_frames(number, sampling)
        return self.num_videos, num_frames, sampling.height, sampling.width, 3

    def _read(self, number: int) -> Frames:
        path = self._path(number)
        frames, note = read_lossless(path)
        shape = self._shape(number)
        if frames.shape != (shape[0] * shape[1], *shape[2:]):
            raise DataError(
                f"{path}: holds {frames.shape} and not {shape}, videos by frames; remove the file"
            )
        self.seconds += note["seconds"]
        return frames.reshape(shape)

    def _drop_from(self, number: int) -> None:
        for later in range(number, self.sampling.num_passes - 1):
            self._path(later).unlink(missing_ok=True)
