"""Videos of one pass or several: each pass after the first continues what the one before has generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.diffusion.euler import OnStep
from cosmos_worker.sample.inputs import video_from_frames
from cosmos_worker.sample.models import Models
from cosmos_worker.sample.video2world import (
    Sample,
    Settings,
    decode_latents,
    encode_known_frames,
    generate_from_known,
)
from cosmos_worker.sampling_options import SamplingConfig

Agree = Callable[[Tensor], Tensor]
"""Gives all processes that share the frames of a video the same tensor."""


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def continue_samples(
    samples: Sequence[Sample], frames_BTHWC: NDArray[np.uint8], sampling: SamplingConfig
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
) -> NDArray[np.uint8]:
    """Sample a batch of videos, pass by pass.

    Args:
        models: network and tokenizer.
        samples: one per video.
        settings: shared by all.
        on_step: called `num_sampler_steps` times in each pass.
        agree: applied to the known latents of each pass.

    Returns:
        uint8 frames (B, sampling.total_pixel_frames, H, W, 3). The first num_pixel_frames of them do not depend on
        how many passes there are; frames that condition a later pass are not repeated.

    Raises:
        DataError: the sampler's result is not finite.
    """
    sampling = settings.sampling
    videos = _generate_pass(models, samples, settings, 0, on_step, agree)
    for number in range(1, sampling.num_passes):
        samples = continue_samples(samples, videos, sampling)
        frames = _generate_pass(models, samples, settings, number, on_step, agree)
        videos = np.concatenate([videos, frames[:, sampling.num_input_frames :]], axis=1)
    return videos


def _generate_pass(
    models: Models,
    samples: Sequence[Sample],
    settings: Settings,
    number: int,
    on_step: OnStep | None,
    agree: Agree,
) -> NDArray[np.uint8]:
    """All frames of one pass, the known ones included, uint8 (B, num_pixel_frames, H, W, 3)."""
    with models.tokenizer_at_work():
        known = agree(encode_known_frames(models.tokenizer, samples, settings))
    with models.network_at_work():
        latents = generate_from_known(models.net, known, samples, settings, on_step, number)
    with models.tokenizer_at_work():
        return decode_latents(models.tokenizer, latents, settings.sigma_data)
