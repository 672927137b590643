"""Finished passes of unfinished videos on disk: the next attempt begins after the last of them.

``<target>/.passes/<key>/001.mkv``, ``002.mkv`` ... hold what each pass has added to the videos of a batch, without
loss. The key stands for everything that decides these frames, and for who shares the batch. The last pass is not
kept, as its videos are written at once. Knows nothing of the processes that share a video: one of them keeps.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import DataError
from cosmos_worker.sample.lossless import (
    read_lossless,
    write_lossless,
)
from cosmos_worker.sample.passes import Frames, num_added_frames
from cosmos_worker.sample.records import Record
from cosmos_worker.storage.volumes import content_key

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
