"""Videos of one pass or several, each of which continues the one before; models that are not at work wait on the host.

Shapes: B videos, C channels, T frames, H rows, W columns, in pixels; latents are those of :mod:`.sampler`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.diffusion.samplers import OnStep
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample.conditioning import video_from_frames
from cosmos_worker.sample.sampler import (
    Sample,
    Settings,
    decode_latents,
    encode_known_frames,
    generate_latents,
)
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer

logger = logging.getLogger(__name__)

HOST = torch.device("cpu")
"""Device on which offloaded models wait."""
Frames = NDArray[np.uint8]
Agree = Callable[[Tensor], Tensor]
"""Collective of the processes that share the frames of a video: gives all the tensor of the one that writes it."""
Keep = Callable[[int, Frames], None]
"""Callback that takes the number of a pass, from 0, and the frames that it has added, uint8 (B, T, H, W, 3)."""


@dataclass
class Models:
    """Network and tokenizer; one that is offloaded is on the device inside its ``with`` block only.

    Attributes:
        net: network in eval mode.
        tokenizer: of the latents that the network was trained on.
        device: where both compute.
        offload: which of "network" and "tokenizer" wait in host memory.
    """

    net: CosmosDiT
    tokenizer: VideoTokenizer
    device: torch.device
    offload: Collection[str] = ()

    def network_at_work(self) -> AbstractContextManager[object]:
        """Move the network to the device for the duration of the block."""
        return self._moved_if_offloaded("network", self.net.to)

    def tokenizer_at_work(self) -> AbstractContextManager[object]:
        """Move the tokenizer to the device for the duration of the block."""
        return self._moved_if_offloaded("tokenizer", self.tokenizer.move)

    def _moved_if_offloaded(
        self, name: str, move: Callable[[torch.device], object]
    ) -> AbstractContextManager[object]:
        return _moved(move, self.device) if name in self.offload else nullcontext()


@contextmanager
def _moved(move: Callable[[torch.device], object], device: torch.device) -> Iterator[None]:
    move(device)
    try:
        yield
    finally:
        move(HOST)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _agree_alone(tensor: Tensor) -> Tensor:
    """`Agree` for a single process."""
    return tensor


def continue_samples(
    samples: Sequence[Sample], frames_BTHWC: Frames, sampling: SamplingConfig
) -> list[Sample]:
    """The conditions of the next pass: the last frames so far, as a lossless file of them would be read."""
    last_BTHWC = frames_BTHWC[:, -sampling.num_input_frames :]
    return [
        replace(sample, known_pixels_CTHW=video_from_frames(frames, sampling))
        for sample, frames in zip(samples, last_BTHWC, strict=True)
    ]


def generate_videos(
    models: Models,
    samples: Sequence[Sample],
    settings: Settings,
    on_step: OnStep | None = None,
    agree: Agree = _agree_alone,
    finished: Sequence[Frames] = (),
    keep: Keep | None = None,
) -> Frames:
    """Sample a batch of videos, pass by pass.

    Args:
        models: network and tokenizer.
        samples: one per video.
        settings: shared by all.
        on_step: called `num_sampler_steps` times in each pass.
        agree: applied to the known latents of each pass.
        finished: frames that the first passes have added, as `keep` was given them; these passes are not computed
            again. Processes that share the frames give equally many; only the pixels of the one that writes count.
        keep: called after each pass but the last.

    Returns:
        uint8 frames (B, sampling.total_pixel_frames, H, W, 3). The first num_pixel_frames of them do not depend on
        how many passes there are; frames that condition a later pass are not repeated.

    Raises:
        DataError: the sampler's result is not finite.
    """
    sampling = settings.sampling
    added = list(finished)
    for number in range(len(finished), sampling.num_passes):
        if sampling.num_passes > 1:
            names = ",".join(sample.id for sample in samples)
            logger.info("generate pass=%d/%d videos=%s", number + 1, sampling.num_passes, names)
        if number:
            samples = continue_samples(samples, _join(added[-2:]), sampling)
        frames = _generate_pass(models, samples, settings, number, on_step, agree)
        added.append(frames[:, sampling.num_input_frames :] if number else frames)
        if keep is not None and number + 1 < sampling.num_passes:
            keep(number, added[-1])
    return _join(added)


def num_added_frames(number: int, sampling: SamplingConfig) -> int:
    """Pixel frames that a pass adds to a video: all in the first pass, those after the known ones in later passes."""
    return sampling.num_pixel_frames - (sampling.num_input_frames if number else 0)


def _join(parts: Sequence[Frames]) -> Frames:
    return np.concatenate(parts, axis=1)


def _generate_pass(
    models: Models,
    samples: Sequence[Sample],
    settings: Settings,
    number: int,
    on_step: OnStep | None,
    agree: Agree,
) -> Frames:
    """All frames of one pass, the known ones included, uint8 (B, num_pixel_frames, H, W, 3)."""
    with models.tokenizer_at_work():
        known = agree(encode_known_frames(models.tokenizer, samples, settings))
    with models.network_at_work():
        latents = generate_latents(models.net, known, samples, settings, on_step, number)
    with models.tokenizer_at_work():
        return decode_latents(models.tokenizer, latents, settings.sigma_data)
