"""PSNR of a generated video against the ground truth. Uses numpy only: must not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PSNR_DB = 100.0
"""PSNR that is reported for equal frames, for which it is infinite."""


@dataclass(frozen=True)
class PsnrScore:
    """PSNR over the generated frames of one video, in dB.

    Attributes:
        psnr_db: of the video against the ground truth.
        copy_psnr_db: of a video that repeats the last known frame of the ground truth; with one
            known frame that is the copied first frame.
    """

    psnr_db: float
    copy_psnr_db: float

    @property
    def gain_db(self) -> float:
        """PSNR of the video minus that of the copied frame."""
        return self.psnr_db - self.copy_psnr_db


def psnr_db(frames_THWC: NDArray[np.uint8], truth_THWC: NDArray[np.uint8]) -> float:
    """PSNR of all pixels of all frames together, at most `MAX_PSNR_DB`.

    Raises:
        ValueError: other types than uint8, different shapes, or no pixel.
    """
    if frames_THWC.shape != truth_THWC.shape or not frames_THWC.size:
        raise ValueError(
            f"psnr: got shapes {frames_THWC.shape} and {truth_THWC.shape}; pass equal ones, not empty"
        )
    if frames_THWC.dtype != np.uint8 or truth_THWC.dtype != np.uint8:
        raise ValueError(f"psnr: got {frames_THWC.dtype} and {truth_THWC.dtype}; pass uint8")
    difference = frames_THWC.astype(np.float32) - truth_THWC.astype(np.float32)
    mean_square = float(np.mean(np.square(difference, out=difference), dtype=np.float64))
    if mean_square == 0:
        return MAX_PSNR_DB
    return min(MAX_PSNR_DB, 10 * math.log10(255**2 / mean_square))


def score_prediction(
    frames_THWC: NDArray[np.uint8], truth_THWC: NDArray[np.uint8], num_known_frames: int
) -> PsnrScore:
    """Score the frames after the known ones against the ground truth.

    Raises:
        ValueError: no frame after the known ones, or arrays that cannot be compared.
    """
    if not 1 <= num_known_frames < len(frames_THWC):
        raise ValueError(
            f"num_known_frames: got {num_known_frames}; use 1 to {len(frames_THWC) - 1}"
        )
    truth = truth_THWC[num_known_frames:]
    copied = np.broadcast_to(truth_THWC[num_known_frames - 1], truth.shape)
    return PsnrScore(psnr_db(frames_THWC[num_known_frames:], truth), psnr_db(copied, truth))
