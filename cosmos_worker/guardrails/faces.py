"""Faces in the frames of a video, made into a few large blocks before the video is written.

Shapes: P prior boxes, K boxes that are kept. Boxes are (left, top, right, bottom), prior boxes (centre x, centre y,
width, height) as shares of the frame.

Source: the settings of RetinaFace with ResNet-50, and cosmos_predict1/auxiliary/guardrail/face_blur_filter.

Shapes: T frames, H rows, W columns, K faces.

Source: cosmos_predict1/auxiliary/guardrail/face_blur_filter. Differs: a frame without finite scores is an error, where
the reference finds no face in it; a box beyond the frame is left out, where the reference ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.retinaface import read_detector
from cosmos_worker.storage.volumes import FACE_FILE

STRIDES = (8, 16, 32)
PRIOR_PIXELS = ((16, 32), (64, 128), (256, 512))
"""Sides of the squares at each cell, by stride."""
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
MIN_SCORE = 0.7
"""A face has a higher one."""
MAX_CANDIDATES = 5000
MAX_OVERLAP = 0.4
MAX_FACES = 750


def prior_boxes(height: int, width: int) -> Tensor:
    """The boxes from which a network's offsets count.

    Args:
        height: of the frame in pixels.
        width: of the frame in pixels.

    Returns:
        (P, 4) float32: from fine to coarse, row by row, at each cell the small one first.
    """
    parts = []
    for stride, sides in zip(STRIDES, PRIOR_PIXELS, strict=True):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        y, x, side = torch.meshgrid(
            (torch.arange(rows, dtype=torch.float64) + 0.5) * stride,
            (torch.arange(columns, dtype=torch.float64) + 0.5) * stride,
            torch.tensor(sides, dtype=torch.float64),
            indexing="ij",
        )
        boxes = (x / width, y / height, side / width, side / height)
        parts.append(torch.stack(boxes, dim=-1).flatten(0, 2))
    return torch.cat(parts).float()


def decode(offsets_P4: Tensor, priors_P4: Tensor, height: int, width: int) -> Tensor:
    """Boxes in pixels.

    Args:
        offsets_P4: what the network says about the prior boxes.
        priors_P4: of `prior_boxes`.
        height: of the frame in pixels.
        width: of the frame in pixels.

    Returns:
        (P, 4): left, top, right, bottom; they may reach beyond the frame.
    """
    centres = priors_P4[:, :2] + offsets_P4[:, :2] * CENTRE_VARIANCE * priors_P4[:, 2:]
    sizes = priors_P4[:, 2:] * (offsets_P4[:, 2:] * SIZE_VARIANCE).exp()
    corners = centres - sizes / 2
    boxes = torch.cat([corners, corners + sizes], dim=1)
    return boxes * boxes.new_tensor([width, height, width, height])


def select_faces(boxes_P4: Tensor, scores_P: Tensor) -> Tensor:
    """Boxes with a high score, of those that overlap the best one.

    Args:
        boxes_P4: in pixels, both ends included.
        scores_P: 0 to 1.

    Returns:
        (K, 4), the best first, on the same device.
    """
    from torchvision.ops import nms

    candidates = (scores_P > MIN_SCORE).nonzero().flatten()
    order = scores_P[candidates].argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    candidates = candidates[order]
    boxes = boxes_P4[candidates]
    areas = boxes + boxes.new_tensor([0, 0, 1, 1])  # the last pixel belongs to a box
    kept = nms(areas, scores_P[candidates], MAX_OVERLAP)
    return boxes[kept[:MAX_FACES]]


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
