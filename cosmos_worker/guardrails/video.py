"""Classifier of frames: SigLIP features, then a small network of 7 classes; one unsafe frame blocks a video.

Shapes: N frames, D features, K classes.

Source: cosmos_predict1/auxiliary/guardrail/video_content_safety_filter. Differs: frames go in batches; a frame that
gives no finite score is an error, where the reference skips it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.guardrails.pretrained import (
    check_weight_files,
    load_model,
    loading,
    read_model_type,
)
from cosmos_worker.guardrails.verdict import (
    VIDEO_FILTER,
    Blocked,
)
from cosmos_worker.runtime.imports import importing_transformers
from cosmos_worker.storage.volumes import FILTER_FILE
from cosmos_worker.weights.tensor_files import read_saved

ENCODER = "image encoder"
SIGLIP_TYPES = ("siglip", "siglip_vision_model")
CLASSES = (
    "safe", "sexual content", "violence", "drugs", "child abuse", "hate and harassment", "self-harm",
)  # fmt: skip
"""In the order of the file's outputs."""
PREFIX = "network.layers."
BATCH_FRAMES = 16


def read_classifier(path: Path) -> nn.Sequential:
    """The network of a ``safety_filter.pt``, with the sizes that its tensors have.

    Returns:
        (N, D) features to (N, 7) scores, in eval mode.

    Raises:
        CheckpointError: no such file, not readable without running code, or another network.

    Source: linear layers, each but the last followed by batch normalisation and ReLU, numbered as in one Sequential.
    """
    content = read_saved(path, "fetch the guardrails again")
    content = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no weights by name; fetch the guardrails again")
    state = {str(name).removeprefix(PREFIX): value for name, value in content.items()}
    try:
        network = _network(state)
        network.load_state_dict(state)
    except (KeyError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: not the network of the video filter ({reason}); fetch the guardrails again"
        ) from None
    last = network[-1]
    assert isinstance(last, nn.Linear)  # by _network
    if last.out_features != len(CLASSES):
        raise CheckpointError(
            f"{path}: {last.out_features} classes, the video filter has {len(CLASSES)}; fetch the guardrails again"
        )
    return network.float().eval()


def _network(state: Mapping[str, Tensor]) -> nn.Sequential:
    """Layers with the sizes of a state, whose names are NUMBER.NAME."""
    numbers = sorted({int(name.partition(".")[0]) for name in state})
    layers: list[nn.Module] = []
    for number in numbers:
        weight = state[f"{number}.weight"]
        if f"{number}.running_mean" in state:
            layers += [nn.BatchNorm1d(len(weight)), nn.ReLU()]
        else:
            rows, columns = weight.shape
            layers.append(nn.Linear(columns, rows))
    if not layers or not isinstance(layers[-1], nn.Linear):
        raise ValueError("the last layer is not linear")
    return nn.Sequential(*layers)


def check_encoder(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """The image processor of a SigLIP folder.

    Raises:
        CheckpointError: not the folder of a SigLIP model, or one that is not complete.
    """
    kind = read_model_type(folder, ENCODER)
    if kind not in SIGLIP_TYPES:
        raise CheckpointError(
            f"{folder}: model_type {kind!r}; the video filter's {ENCODER} is one of {', '.join(SIGLIP_TYPES)}"
        )
    check_weight_files(folder, ENCODER)
    with loading(folder, ENCODER):
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(folder, local_files_only=True)


class VideoFilter:
    """A filter that looks at every frame of a video.

    Args:
        folder: the guardrails' folder, which has `FILTER_FILE`.
        encoder: folder of the SigLIP model.
        device: where to compute, in float32 as the reference does.

    Raises:
        CheckpointError: a folder that is not what it should be, or two that do not fit.
    """

    def __init__(self, folder: Path, encoder: Path, device: torch.device) -> None:
        with importing_transformers():
            from transformers import SiglipVisionModel

        self._processor = check_encoder(encoder)
        self._classifier = read_classifier(folder / FILTER_FILE).to(device)
        self._encoder = load_model(
            SiglipVisionModel.from_pretrained, encoder, ENCODER, device, torch.float32
        )
        self._device = device
        have, want = self._encoder.config.hidden_size, self._classifier[0].in_features
        if have != want:
            raise CheckpointError(
                f"{encoder}: features are {have} wide, {folder / FILTER_FILE} takes {want}; use the filter's own"
            )

    def check(self, frames_THWC: NDArray[np.uint8]) -> Blocked | None:
        """What is wrong with a video, if anything is.

        Args:
            frames_THWC: every frame, RGB.

        Raises:
            DataError: no frame, or one without a finite score.
        """
        found = self.classify(frames_THWC)
        unsafe = [number for number, name in enumerate(found) if name != CLASSES[0]]
        if not unsafe:
            return None
        first = unsafe[0]
        return Blocked(
            VIDEO_FILTER,
            f"{len(unsafe)} of {len(found)} frames are unsafe, the first is frame {first}: {found[first]}",
        )

    @torch.inference_mode()
    def classify(self, frames_THWC: NDArray[np.uint8]) -> Sequence[str]:
        """The class of each frame.

        Raises:
            DataError: no frame, or one without a finite score.
        """
        if not len(frames_THWC):
            raise DataError("video filter: the video has no frame")
        scores_NK = torch.cat(
            [
                self._score(frames_THWC[start : start + BATCH_FRAMES])
                for start in range(0, len(frames_THWC), BATCH_FRAMES)
            ]
        )
        bad = (~scores_NK.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise DataError(
                f"video filter: frame {bad[0]} has no finite score, so that it cannot be judged; "
                "check the files of the guardrails and of the image encoder"
            )
        return [CLASSES[i] for i in scores_NK.argmax(dim=1).tolist()]

    def _score(self, frames_NHWC: NDArray[np.uint8]) -> Tensor:
        pixels = self._processor(
            images=list(frames_NHWC), return_tensors="pt", input_data_format="channels_last"
        )
        features_ND = self._encoder(
            pixel_values=pixels["pixel_values"].to(self._device)
        ).pooler_output
        return self._classifier(nn.functional.normalize(features_ND, dim=-1)).cpu()
