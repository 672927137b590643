"""A RetinaFace of the true size whose weights are set, not drawn: a red dot is a face, nothing else is.

One channel carries the redness of every eighth pixel past all layers to the finest head; all other weights are zero
and take no room in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.guardrails.retinaface import RetinaFace

BOX = 32
"""Side of the box around a dot."""
RED = (255, 0, 0)


def face_state(*, small: bool = False) -> dict[str, Tensor]:
    """Weights by their released names.

    Args:
        small: faces have 16 pixels a side, not `BOX`.
    """
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in RetinaFace().state_dict().items()}
    norms = {name.removesuffix("running_var") for name in shapes if name.endswith("running_var")}
    state = {
        name: torch.tensor(
            float(name.rpartition(".")[0] + "." in norms and name.endswith(("weight", "var")))
        ).expand(shape)
        for name, shape in shapes.items()
    }
    state |= {
        name: torch.zeros((), dtype=torch.int64)
        for name in shapes
        if name.endswith("num_batches_tracked")
    }
    middle = {
        "body.conv1.weight": 3, "body.layer1.0.downsample.0.weight": 0, "body.layer2.0.downsample.0.weight": 0,
        "fpn.output1.0.weight": 0, "fpn.merge1.0.weight": 1, "ssh1.conv3X3.0.weight": 1,
    }  # fmt: skip
    for name, centre in middle.items():
        state[name] = state[name].clone()
        state[name][0, 0, centre, centre] = 1
    state["body.conv1.weight"][0, :, 3, 3] = torch.tensor([-1.0, -1.0, 1.0])  # of BGR
    state["body.bn1.bias"] = torch.full((64,), -158.0)  # red - green - blue - 60 in all
    for level in range(3):
        state[f"ClassHead.{level}.conv1x1.bias"] = torch.tensor([50.0, 0, 50, 0])
    head = state["ClassHead.0.conv1x1.weight"].clone()
    head[1 if small else 3, 0] = 1
    return {**state, "ClassHead.0.conv1x1.weight": head}


def write_face_detector(path: Path, state: Any = None) -> Path:
    """Write weights, those of `face_state` if none are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(face_state() if state is None else state, path)
    return path


def grey_frames(num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Noise without colour, uint8 (T, H, W, 3)."""
    noise = np.random.default_rng(0).integers(0, 255, (num_frames, height, width, 1), np.uint8)
    return noise.repeat(3, axis=-1)
