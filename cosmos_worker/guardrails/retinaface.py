"""RetinaFace with the body of a ResNet-50: the network that finds faces, and its released file.

Shapes: N frames, H rows, W columns, P prior boxes, C channels.

Source: Deng et al., RetinaFace (arXiv 1905.00641); names and sizes of the weights as Resnet50_Final.pth has them.
Differs: landmarks are loaded, since they belong to the file, and not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.tensor_files import read_saved

LEVEL_CHANNELS = (512, 1024, 2048)
"""Of the body's outputs, at strides 8, 16 and 32."""
CHANNELS = 256
PRIORS_PER_CELL = 2
PREFIX = "module."
"""Before the names of weights that were trained on several GPUs."""


class RetinaFace(nn.Module):
    """Scores and boxes of all prior boxes. Needs torchvision.

    Raises:
        ImportError: torchvision is not installed.
    """

    def __init__(self) -> None:
        from torchvision.models import resnet50

        super().__init__()
        layers = dict(resnet50(weights=None).named_children())
        self.body = nn.ModuleDict(
            {name: layer for name, layer in layers.items() if name not in ("avgpool", "fc")}
        )
        self.fpn = _Pyramid()
        self.ssh1, self.ssh2, self.ssh3 = _Context(), _Context(), _Context()
        self.ClassHead = _heads(2)
        self.BboxHead = _heads(4)
        self.LandmarkHead = _heads(10)

    def forward(self, pixels_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Look at frames.

        Args:
            pixels_NCHW: BGR, 0 to 255, less the mean of each channel.

        Returns:
            Offsets from the prior boxes (N, P, 4), and logits of no face and face (N, P, 2), in the order of
            :func:`cosmos_worker.guardrails.faces.prior_boxes`.
        """
        levels, x = [], pixels_NCHW
        for name, layer in self.body.items():
            x = layer(x)
            if name in ("layer2", "layer3", "layer4"):
                levels.append(x)
        contexts = (self.ssh1, self.ssh2, self.ssh3)
        features = [
            context(level) for context, level in zip(contexts, self.fpn(levels), strict=True)
        ]
        return _join(self.BboxHead, features), _join(self.ClassHead, features)


class _Pyramid(nn.Module):
    """Levels of one width; each takes up what the next coarser one knows."""

    def __init__(self) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (
            _convolution(channels, CHANNELS, 1) for channels in LEVEL_CHANNELS
        )
        self.merge1 = _convolution(CHANNELS, CHANNELS, 3)
        self.merge2 = _convolution(CHANNELS, CHANNELS, 3)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = levels
        coarse = self.output3(coarse)
        middle = self.output2(middle)
        middle = self.merge2(middle + _enlarge(coarse, middle))
        fine = self.output1(fine)
        return self.merge1(fine + _enlarge(middle, fine)), middle, coarse


class _Context(nn.Module):
    """Views of 3, 5 and 7 pixels, side by side."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = CHANNELS // 2, CHANNELS // 4
        self.conv3X3 = _convolution(CHANNELS, half, 3, relu=False)
        self.conv5X5_1 = _convolution(CHANNELS, quarter, 3)
        self.conv5X5_2 = _convolution(quarter, quarter, 3, relu=False)
        self.conv7X7_2 = _convolution(quarter, quarter, 3)
        self.conv7x7_3 = _convolution(quarter, quarter, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5X5_1(x)
        views = (self.conv3X3(x), self.conv5X5_2(shared), self.conv7x7_3(self.conv7X7_2(shared)))
        return torch.cat(views, dim=1).relu()


def _convolution(inputs: int, outputs: int, size: int, *, relu: bool = True) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    layers = [convolution, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return nn.functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def _heads(values: int) -> nn.ModuleList:
    """A linear head for each level, with so many values for each prior box of a cell."""
    return nn.ModuleList(
        nn.ModuleDict({"conv1x1": nn.Conv2d(CHANNELS, PRIORS_PER_CELL * values, 1)})
        for _ in LEVEL_CHANNELS
    )


def _join(heads: nn.ModuleList, features: list[Tensor]) -> Tensor:
    """Values of all prior boxes: level by level, row by row, cell by cell."""
    parts = []
    for head, x in zip(heads, features, strict=True):
        assert isinstance(head, nn.ModuleDict)  # by _heads
        values_NHWC = head["conv1x1"](x).permute(0, 2, 3, 1)
        channels = values_NHWC.shape[-1] // PRIORS_PER_CELL
        parts.append(values_NHWC.reshape(len(x), -1, channels))
    return torch.cat(parts, dim=1)


def read_detector(path: Path) -> RetinaFace:
    """The network of a ``Resnet50_Final.pth``.

    Returns:
        It, float32, in eval mode, on the CPU.

    Raises:
        CheckpointError: no such file, not readable without running code, another network, or torchvision is missing.
    """
    try:
        with torch.device("meta"):  # no random numbers for weights that the file replaces
            network = RetinaFace()
    except ImportError as error:
        raise CheckpointError(
            f"{path}: finding faces needs a package that is not installed ({error}); "
            "install the extra 'guardrails' of this package"
        ) from None
    state = _read_state(path)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: not the weights of RetinaFace with ResNet-50 ({reason}); fetch the guardrails again"
        ) from None
    return network.float().requires_grad_(False).eval()


def _read_state(path: Path) -> dict[str, Tensor]:
    """Weights by the network's names; a file may wrap them, and call them by a prefix."""
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file, which finds the faces that are blurred; fetch the guardrails again"
        )
    content = read_saved(path, "fetch the guardrails again")
    content = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise CheckpointError(f"{path}: holds no weights by name; fetch the guardrails again")
    return {str(name).removeprefix(PREFIX): value for name, value in content.items()}
