"""From the numbers of a face detector to boxes in pixels.

Shapes: P prior boxes, K boxes that are kept. Boxes are (left, top, right, bottom), prior boxes (centre x, centre y,
width, height) as shares of the frame.

Source: the settings of RetinaFace with ResNet-50, and cosmos_predict1/auxiliary/guardrail/face_blur_filter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
