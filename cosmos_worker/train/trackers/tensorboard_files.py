"""Event files for TensorBoard in the run's folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
)
from cosmos_worker.data.video.fit import resize_frames

FOLDER = "tensorboard"
FLUSH_SECONDS = 30
GIF_WIDTH = 320
"""Wider videos are shown smaller."""


class TensorboardFiles:
    """Figures, and sample videos as moving pictures, which TensorBoard shows among its images."""

    name = "tensorboard"

    def __init__(self, run: Path, first_step: int, experiment: Experiment) -> None:
        from tensorboardX import SummaryWriter

        # what an interrupted run wrote after its last checkpoint is hidden
        purge = first_step + 1 if first_step else 0
        self._writer = SummaryWriter(
            str(run / FOLDER), purge_step=purge, flush_secs=FLUSH_SECONDS, write_to_disk=True
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """See ``Tracker``."""
        from tensorboardX.proto.summary_pb2 import Summary

        for name, path in paths.items():
            content, height, width = encode_gif(path)
            picture = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=content
            )
            value = Summary.Value(tag=f"samples/{name}", image=picture)
            self._writer.file_writer.add_summary(Summary(value=[value]), step)

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()


def encode_gif(path: Path) -> tuple[bytes, int, int]:
    """A video as a moving picture that repeats; its rows and columns."""
    frames = read_video(path)
    rows, columns = frames.shape[1:3]
    if columns > GIF_WIDTH:
        rows, columns = max(1, round(rows * GIF_WIDTH / columns)), GIF_WIDTH
        frames = resize_frames(frames, rows, columns)
    pictures = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    pictures[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / open_video(path).fps),
        loop=0,
    )
    return stream.getvalue(), rows, columns
