"""GPU memory of sample videos while training: the tokenizer, and decoding on the main process. No torch.

Shapes are those of CV8x8x8 (reference facts 6.2). docs/memory.md explains the terms; nothing is measured on a GPU.
"""

from __future__ import annotations

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    Experiment,
    TokenizerConfig,
    VideoConfig,
)

TOKENIZER_PARAMETERS = 105_653_696
"""Encoder and decoder: the main process holds both."""
CHANNELS = 512
"""Of the decoder at a latent's size, and of the first residual block behind the upsampling."""
FLOAT_BYTES = 4
COLOURS = 3
WIDE_TENSORS = 4
"""Of CHANNELS behind the upsampling at once: a residual block's input, two steps of it, a padded copy."""
ATTENTION_TENSORS = 7
"""Of CHANNELS while a frame attends to itself: input, norm, q, k, v, rearranged copies."""
ATTENTION_MATRICES = 2
"""Of positions by positions for each frame: the products and what is made of them."""
FLOAT_VIDEOS = 3.25
"""The whole video in float32, two steps on the way to pixels, and the pixels."""


def width_of(tokenizer: TokenizerConfig) -> int:
    """Bytes of a value of the tokenizer on a GPU."""
    return 4 if tokenizer.dtype == "float32" else 2


def decoder_bytes(frames: int, rows: int, columns: int, width: int) -> int:
    """Estimated peak of the decoder's tensors for one chunk of latents.

    Args:
        frames: of the latents.
        rows: of the latents, H / 8.
        columns: of the latents, W / 8.
        width: bytes of a value.
    """
    positions = rows * columns
    matrices = ATTENTION_MATRICES * positions**2
    attention = frames * (matrices + ATTENTION_TENSORS * CHANNELS * positions)
    wide = (2 * frames - 1) * 4 * positions * CHANNELS * WIDE_TENSORS
    return width * max(attention, wide)


def decoding_bytes(video: VideoConfig, tokenizer: TokenizerConfig) -> int:
    """Estimated peak of decoding one video: chunk by chunk as the tokenizer does, then to pixels."""
    chunk = min(video.num_pixel_frames, tokenizer.chunk_pixel_frames)
    num_chunks = max(1, video.num_pixel_frames // chunk)
    together = min(num_chunks, max(1, tokenizer.batch_size // 2))
    latent_frames = 1 + (chunk - 1) // LATENT_SCALE
    rows, columns = video.height // LATENT_SCALE, video.width // LATENT_SCALE
    in_decoder = together * decoder_bytes(latent_frames, rows, columns, width_of(tokenizer))
    frame = COLOURS * video.height * video.width * FLOAT_BYTES
    decoded_before = (num_chunks - together) * chunk * frame
    whole = num_chunks * chunk * frame
    return max(decoded_before + in_decoder, int(FLOAT_VIDEOS * whole))


def sample_bytes(experiment: Experiment) -> tuple[int, int]:
    """What sample videos take on the main process's GPU; nothing if they are not asked for.

    Returns:
        Weights of the tokenizer, which stay; peak of decoding the window that takes most, between two steps.
    """
    if experiment.trainer.sample_every_steps is None:
        return 0, 0
    tokenizer = experiment.tokenizer
    peak = max(decoding_bytes(video, tokenizer) for video in experiment.windows)
    return TOKENIZER_PARAMETERS * width_of(tokenizer), peak
