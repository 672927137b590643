"""The network and what it is shown: windows of video, captions, known frames, noise, latents. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cosmos_worker.config.values import (
    Fraction,
    Model,
    PositiveInt,
)

TextPadding = Literal["pad", "trim"]
"""pad: zeros up to the longest length that captions may have; trim: a context of the caption's own length."""


KNOWN_FRAME_NOISE = (-3.0, 2.0, 1.0)
"""Noise on known frames in training, as in the pre-training: mean and deviation of ln sigma, factor on sigma."""
STRONG_KNOWN_FRAME_NOISE = (0.0, 1.0, 4.0)
"""The same in the reference's bridge configuration (``compat.strong_known_frame_noise``)."""

LATENT_SCALE = 8
"""Pixels per latent row and column, and pixel frames per latent frame after the first."""


class NetConfig(Model):
    """Shape of the Cosmos-Predict1 diffusion transformer (GeneralDIT)."""

    model_channels: PositiveInt
    """Width D of the hidden state."""
    num_blocks: PositiveInt
    """Number of blocks, each self-attention, cross-attention, MLP."""
    num_heads: PositiveInt
    """Attention heads; must divide model_channels into an even head size."""
    latent_channels: PositiveInt = 16
    """Channels of the tokenizer's latent, in and out."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP in units of model_channels."""
    text_channels: PositiveInt = 1024
    """Width of the text embeddings (T5-11B: 1024)."""
    adaln_lora_dim: PositiveInt = 256
    """Rank of the adaLN-LoRA modulation."""
    patch_size: PositiveInt = 2
    """Latent rows and columns per token."""
    max_latent_size: PositiveInt = 240
    """Largest latent height and width that the position tables admit."""
    max_latent_frames: PositiveInt = 128
    """Largest number of latent frames that the position tables admit."""
    rope_ratio_t: float = 2.0
    """NTK extrapolation ratio of the rotary embedding over time."""
    rope_ratio_h: float = 1.0
    """NTK extrapolation ratio of the rotary embedding over rows."""
    rope_ratio_w: float = 1.0
    """NTK extrapolation ratio of the rotary embedding over columns."""
    extra_pos_emb: Literal["auto", "learnable", "none"] = "auto"
    """Learnable absolute position embedding added in every block; auto = as the checkpoint has it."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model_channels % self.num_heads or (self.model_channels // self.num_heads) % 2:
            raise ValueError(
                f"num_heads: {self.num_heads} does not divide model_channels {self.model_channels} "
                "into heads of an even size"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.model_channels // self.num_heads


class VideoConfig(Model):
    """A window of video: the pixels that one sample shows."""

    num_pixel_frames: PositiveInt
    """Frames per window, 8n+1."""
    height: PositiveInt
    """Rows in pixels, a multiple of 16."""
    width: PositiveInt
    """Columns in pixels, a multiple of 16."""
    fps: Annotated[float, Field(gt=0)] | None = None
    """Frames per second given to the network; null = as the video says."""
    window_stride: PositiveInt = 1
    """Pixel frames between the starts of neighbouring windows."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        check_video_size(self.num_pixel_frames, self.height, self.width)
        return self

    @property
    def size_name(self) -> str:
        """Frames x height x width, such as 57x256x320: the name of a bucket."""
        return f"{self.num_pixel_frames}x{self.height}x{self.width}"


def check_video_size(num_pixel_frames: int, height: int, width: int) -> None:
    """Raise ValueError unless frames are 8n+1 and sizes are multiples of 16."""
    problems = []
    if (num_pixel_frames - 1) % LATENT_SCALE:
        low = num_pixel_frames - (num_pixel_frames - 1) % LATENT_SCALE
        problems.append(
            f"num_pixel_frames: {num_pixel_frames} is not 8n+1; use {low} or {low + LATENT_SCALE}"
        )
    for name, value in (("height", height), ("width", width)):
        if value % 16:
            low = max(16, value - value % 16)
            problems.append(f"{name}: {value} is not a multiple of 16; use {low} or {low + 16}")
    if problems:
        raise ValueError("; ".join(problems))


class TextConfig(Model):
    """Length and dropout of the captions that the network is shown."""

    max_length: PositiveInt = 512
    """Longest caption in tokens, end token included."""
    dropout: Fraction = 0.2
    """Share of samples whose text is replaced by zeros."""


class ConditioningConfig(Model):
    """Known latent frames: the frames of the sample itself that the network is shown while it denoises the others."""

    min_cond_latent_frames: Annotated[int, Field(ge=0)] = 0
    """Fewest known latent frames of a sample; their number is drawn uniformly between this and the most."""
    max_cond_latent_frames: Annotated[int, Field(ge=0)] = 1
    """Most known latent frames of a sample."""
    flag_dropout: Fraction = 0.2
    """Share of samples whose known frames are hidden from the network, so that it learns to generate without them."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_cond_latent_frames > self.max_cond_latent_frames:
            raise ValueError(
                f"min_cond_latent_frames: {self.min_cond_latent_frames} is more than "
                f"max_cond_latent_frames {self.max_cond_latent_frames}"
            )
        return self


class DiffusionConfig(Model):
    """Noise levels and loss of the training (EDM, Karras et al. 2022)."""

    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """Standard deviation of the latents given to the network."""
    p_mean: float = 0.0
    """Mean of ln sigma; sigma is the standard deviation of the noise on the latents."""
    p_std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of ln sigma."""
    sigma_multiplier: Annotated[float, Field(gt=0)] = 1.0
    """Factor on every sigma; adjust_video_noise of the reference is the square root of the latent frames, 4 for 16."""
    use_logvar: bool = True
    """Weigh the loss by an uncertainty v that is learned for each noise level, as loss exp(-v) + v (Kendall and
    Gal 2017), which may be negative."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's matrix products; auto = bfloat16 on CUDA, float32 on CPU."""


TokenizerRuntime = Literal["native", "torchscript"]
"""What computes a tokenizer: our own network with the weights of the files, or the TorchScript programs in them."""


class TokenizerConfig(Model):
    """Encoding of windows of video as latents."""

    chunk_pixel_frames: PositiveInt
    """Frames that are encoded together, 8n+1; longer videos are multiples of it."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the cached latents and, on CUDA, of the encoder."""
    batch_size: PositiveInt = 8
    """Windows that are encoded at once; more is faster and takes more memory."""
