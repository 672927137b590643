"""The numbers of a sample video: size, sampler, guidance, known frames. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cosmos_worker.config.network import check_video_size
from cosmos_worker.config.values import (
    Caption,
    Model,
    PositiveInt,
)

DEFAULT_NEGATIVE_PROMPT = (
    "A bad recording: blurred, noisy, blocky, flickering or frozen, with a shaking camera, wrong exposure and dull "
    "colours; objects melt, jump, vanish or pass through each other, and the motion obeys no physics."
)
"""The text that guidance moves away from where none is named."""


class SamplingConfig(Model):
    """Parameters of one inference item."""

    num_steps: PositiveInt = 35
    """Sampler steps."""
    guidance: Annotated[float, Field(ge=0)] = 7.0
    """g in F_cond + g (F_cond - F_uncond); 0 = no second pass."""
    seed: int = 1
    """Seed of the initial noise; sample i of a list uses a stream of its own."""
    num_pixel_frames: PositiveInt = 121
    height: PositiveInt = 704
    width: PositiveInt = 1280
    fps: Annotated[float, Field(gt=0)] = 24.0
    """Frames per second given to the network and written to the file."""
    num_input_frames: Literal[1, 9] = 1
    """Known pixel frames: 1 (one latent frame) or 9 (two)."""
    num_passes: PositiveInt = 1
    """Passes over the video: each after the first continues it from its last num_input_frames frames, which are not
    repeated, so that num_pixel_frames is the length of one pass."""
    input_frames: Literal["first", "last"] = "last"
    """The known frames of a conditioning video: its first or its last, as the reference takes them."""
    negative_prompt: Caption | None = None
    """Text of the second pass; null = a default of ours; empty = the embedding of ''."""
    sampler: Literal["edm_euler", "res_2ab", "res_2mid", "res_1euler"] = "edm_euler"
    """edm_euler: the reference's inference; res_*: its multistep solvers in x0 space."""
    sigma_max: Annotated[float, Field(gt=0)] = 80.0
    sigma_min: Annotated[float, Field(gt=0)] = 0.0002
    known_frames: Literal["correct", "legacy"] = "correct"
    """legacy repeats the reference's wrong inverse preconditioning of known frames."""
    pixel_range: Literal["exact", "legacy"] = "exact"
    """Known frames are x / 127.5 - 1 as in training; legacy: x / 128 - 1 as the reference's inference."""
    batch_size: PositiveInt = 1
    """Samples per forward pass."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        check_video_size(self.num_pixel_frames, self.height, self.width)
        return self

    @property
    def guided_away_from(self) -> str | None:
        """The text that guidance moves away from; None without guidance."""
        if self.guidance == 0:
            return None
        return DEFAULT_NEGATIVE_PROMPT if self.negative_prompt is None else self.negative_prompt

    @property
    def total_pixel_frames(self) -> int:
        """Pixel frames of the whole video: every pass after the first adds what it generates."""
        added = self.num_pixel_frames - self.num_input_frames
        return self.num_pixel_frames + (self.num_passes - 1) * added
