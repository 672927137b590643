"""Faces in the frames of a video, made into a few large blocks before the video is written.

Shapes: T frames, H rows, W columns, K faces.

Source: cosmos_predict1/auxiliary/guardrail/face_blur_filter. Differs: a frame without finite scores is an error, where
the reference finds no face in it; a box beyond the frame is left out, where the reference ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.face_boxes import (
    decode,
    prior_boxes,
    select_faces,
)
from cosmos_worker.guardrails.retinaface import read_detector
from cosmos_worker.storage.volumes import FACE_FILE

MEAN_BGR = (104.0, 117.0, 123.0)
BLOCKS = 5
"""Along each side of a face."""
MIN_FACE_PIXELS = 20
"""Smaller faces stay as they are."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, inside the frame, the last ones not included."""


class FaceBlur:
    """Finds and blurs faces, frame by frame.

    Args:
        folder: the guardrails' folder, which has `FACE_FILE`.
        device: where to compute, in float32 as the reference does.

    Raises:
        CheckpointError: no such file, another network, or torchvision is missing.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._path = folder / FACE_FILE
        self._network = read_detector(self._path).to(device)
        self._device = device

    def blur(self, frames_THWC: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """Blur every face.

        Args:
            frames_THWC: every frame, RGB; left as they are.

        Returns:
            The frames, blurred, and the number of those in which a face was blurred.

        Raises:
            DataError: a frame without finite scores.
        """
        blurred = frames_THWC.copy()
        height, width = frames_THWC.shape[1:3]
        priors_P4 = prior_boxes(height, width).to(self._device)
        num_frames = 0
        for number, frame_HWC in enumerate(blurred):
            boxes = whole_boxes(self._find(frame_HWC, priors_P4, number), height, width)
            for left, top, right, bottom in boxes:
                face = frame_HWC[top:bottom, left:right]
                face[:] = pixelate(face)
            num_frames += bool(boxes)
        return blurred, num_frames

    @torch.inference_mode()
    def _find(self, frame_HWC: NDArray[np.uint8], priors_P4: Tensor, number: int) -> Tensor:
        """Faces of a frame, (K, 4) in pixels."""
        rgb_HWC = torch.from_numpy(frame_HWC).to(self._device, torch.float32)
        bgr_CHW = (rgb_HWC.flip(-1) - rgb_HWC.new_tensor(MEAN_BGR)).permute(2, 0, 1)
        offsets_1P4, logits_1P2 = self._network(bgr_CHW[None])
        scores_P = logits_1P2[0].softmax(-1)[:, 1]
        boxes_P4 = decode(offsets_1P4[0], priors_P4, *frame_HWC.shape[:2])
        if not (scores_P.isfinite().all() and boxes_P4.isfinite().all()):
            raise DataError(
                f"face blur: frame {number} has no finite scores, so that its faces cannot be found; "
                f"check {self._path}"
            )
        return select_faces(boxes_P4, scores_P)


def whole_boxes(boxes_K4: Tensor, height: int, width: int) -> list[Box]:
    """What is blurred of the boxes: whole pixels inside the frame, of faces that are large enough."""
    found = []
    for left, top, right, bottom in _truncate(boxes_K4.tolist()):
        if min(right - left, bottom - top) < MIN_FACE_PIXELS:
            continue
        box = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
        if box[0] < box[2] and box[1] < box[3]:
            found.append(box)
    return found


def _truncate(boxes: Iterable[list[float]]) -> Iterable[Box]:
    for left, top, right, bottom in boxes:
        yield int(left), int(top), int(right), int(bottom)


def pixelate(face_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as `BLOCKS` x `BLOCKS` blocks, each of the colour in its middle."""
    pixels_1CHW = torch.from_numpy(face_HWC.copy()).permute(2, 0, 1)[None].float()
    resize = torch.nn.functional.interpolate
    blocks = resize(pixels_1CHW, size=(BLOCKS, BLOCKS), mode="bilinear", align_corners=False)
    large = resize((blocks + 0.5).floor(), size=face_HWC.shape[:2], mode="nearest")
    result: NDArray[np.uint8] = large[0].permute(1, 2, 0).to(torch.uint8).numpy()
    return result
