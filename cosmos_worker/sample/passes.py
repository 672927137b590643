"""Videos of one pass or several, each of which continues the one before; and where the models are meanwhile."""

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
    generate_from_known,
)
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer

HOST = torch.device("cpu")
"""Where models wait."""


@dataclass
class Models:
    """Both models; one that is offloaded is on the device inside its ``with`` block only.

    Attributes:
        net: network in eval mode.
        tokenizer: of the same latents.
        device: where both compute.
        offload: which of "network" and "tokenizer" wait in host memory.
    """

    net: CosmosDiT
    tokenizer: VideoTokenizer
    device: torch.device
    offload: Collection[str] = ()

    def network_at_work(self) -> AbstractContextManager[object]:
        """The network is on the device inside the block."""
        return self._present("network", self.net.to)

    def tokenizer_at_work(self) -> AbstractContextManager[object]:
        """The tokenizer is on the device inside the block."""
        return self._present("tokenizer", self.tokenizer.move)

    def _present(
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


logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
Agree = Callable[[Tensor], Tensor]
"""Gives all processes that share the frames of a video the same tensor: that of the one that writes it."""
Keep = Callable[[int, Frames], None]
"""Takes what a pass has added (B, T, H, W, 3), with its number from 0; not called after the last."""


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def continue_samples(
    samples: Sequence[Sample], frames_BTHWC: Frames, sampling: SamplingConfig
) -> list[Sample]:
    """What the next pass starts from: the last frames so far, as they would be read from a file without loss."""
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
    agree: Agree = _as_it_is,
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
        finished: what the first passes have added, as `keep` was given it; they are not computed again. Processes that
            share the frames give equally many; only the pixels of the one that `agree` follows count.
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
    """Pixel frames that a pass adds to a video: all of the first, what is not known of the others."""
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
        latents = generate_from_known(models.net, known, samples, settings, on_step, number)
    with models.tokenizer_at_work():
        return decode_latents(models.tokenizer, latents, settings.sigma_data)
