"""Estimates of what a GPU holds only while it computes: activations of a step, and tensors of decoding a video.

docs/memory.md explains the terms. No torch here.
"""

from __future__ import annotations

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import LATENT_SCALE, NetConfig, TokenizerConfig, VideoConfig
from cosmos_worker.config.training import Checkpointing
from cosmos_worker.memory.sizes import FLOAT8_BYTES, FLOAT_BYTES

# --- activations of a step ------------------------------------------------------------------


def block_activation_bytes(
    net: NetConfig, tokens: int, text_tokens: int, width: int, float8_inputs: bool = False
) -> int:
    """Bytes that autograd keeps of one block for its backward pass; mirrors the arithmetic of ``model/layers.py``.

    Args:
        net: shape of the network.
        tokens: of the micro-batch on this GPU.
        text_tokens: of the micro-batch.
        width: bytes of the compute type: 2 with bfloat16 autocast, 4 without.
        float8_inputs: attention and MLP layers keep their inputs in float8, as those of Transformer Engine.
    """
    D, norm = net.model_channels, 2 * FLOAT_BYTES  # input of a norm, and its result for the scale
    kept = FLOAT8_BYTES if float8_inputs else width
    input_casts = 3 if kept < FLOAT_BYTES else 1  # the input is rounded for q, k and v each
    result = FLOAT8_BYTES if float8_inputs else 0  # of attention, rounded for the output layer
    self_attention = (
        norm + input_casts * kept + 2 * norm + 5 * width + result
    )  # q k v, attention, output
    cross_attention = norm + kept + norm + 3 * width + result
    mlp = norm + kept + net.mlp_ratio * (width + kept) + width
    text = norm + 2 * width
    text_casts = 2 * kept * net.text_channels if kept < FLOAT_BYTES else 0
    log_sums = 2 * FLOAT_BYTES * net.num_heads * tokens  # of both softmaxes
    image = int(tokens * D * (self_attention + cross_attention + mlp))
    return image + text_tokens * (text * D + text_casts) + log_sums


def kept_block_bytes(
    net: NetConfig,
    tokens: int,
    text_tokens: int,
    width: int,
    checkpointing: Checkpointing,
    float8_inputs: bool = False,
) -> int:
    """Bytes that stay of a block until its backward pass; arguments as of :func:`block_activation_bytes`.

    With checkpointing ``block`` its float32 input stays; with ``selective`` also the results of matrix products and
    attention; with ``none`` everything.
    """
    if checkpointing == "none":
        return block_activation_bytes(net, tokens, text_tokens, width, float8_inputs)
    D = net.model_channels
    block_input = FLOAT_BYTES * tokens * D
    if checkpointing == "block":
        return block_input
    results = 5 + 3 + net.mlp_ratio + 1
    return block_input + int(tokens * D * results * width) + 2 * text_tokens * D * width


def activation_bytes(
    net: NetConfig,
    tokens: int,
    text_tokens: int,
    width: int,
    checkpointing: Checkpointing,
    float8_inputs: bool = False,
) -> int:
    """Estimated peak of activations in bytes; arguments as of :func:`block_activation_bytes`.

    It is the sum of the kept part of all blocks, the rest of the block that is being recomputed, the gradients inside
    that block, and the layers outside the blocks.
    """
    D = net.model_channels
    kept = kept_block_bytes(net, tokens, text_tokens, width, checkpointing, float8_inputs)
    recomputed = block_activation_bytes(net, tokens, text_tokens, width, float8_inputs) - kept
    gradients = int(tokens * D * (2 * net.mlp_ratio * width + 2 * FLOAT_BYTES))
    positions = 0 if net.extra_pos_emb == "none" else FLOAT_BYTES
    rotation = FLOAT_BYTES * tokens * net.head_dim  # cosine and sine of half a head
    outside = tokens * D * (positions + 2 * FLOAT_BYTES + width) + rotation
    return net.num_blocks * kept + recomputed + gradients + outside


# --- sample videos --------------------------------------------------------------------------


TOKENIZER_PARAMETERS = 105_653_696
"""Parameters of encoder and decoder, both of which the main process loads."""
CHANNELS = 512
"""Channels of the decoder at the size of the latent, and of the first residual block behind its upsampling."""
COLOURS = 3
WIDE_TENSORS = 4
"""Tensors of CHANNELS that exist at once behind the upsampling: a residual block's input, two steps, a padded copy."""
ATTENTION_TENSORS = 7
"""Tensors of CHANNELS that exist at once in a frame's attention: input, norm, q, k, v, rearranged copies."""
ATTENTION_MATRICES = 2
"""Matrices of positions by positions that exist at once in a frame's attention: scores and their softmax."""
FLOAT_VIDEOS = 3.25
"""Size of all copies of the decoded video in units of its float32 size: itself, two steps to pixels, and the pixels."""


def width_of(tokenizer: TokenizerConfig) -> int:
    """Bytes of a value of the tokenizer's dtype on a GPU."""
    return 4 if tokenizer.dtype == "float32" else 2


def decoder_bytes(frames: int, rows: int, columns: int, width: int) -> int:
    """Estimated peak of the decoder's tensors for one chunk of latents, in bytes.

    Args:
        frames: latent frames.
        rows: latent rows, H / 8.
        columns: latent columns, W / 8.
        width: bytes of a value.
    """
    positions = rows * columns
    matrices = ATTENTION_MATRICES * positions**2
    attention = frames * (matrices + ATTENTION_TENSORS * CHANNELS * positions)
    wide = (2 * frames - 1) * 4 * positions * CHANNELS * WIDE_TENSORS
    return width * max(attention, wide)


def decoding_bytes(video: VideoConfig, tokenizer: TokenizerConfig) -> int:
    """Estimated peak of decoding one video in bytes: chunk by chunk as the tokenizer does, then to pixels."""
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
    """Bytes that sample videos take on the main process's GPU; 0 and 0 if they are not asked for.

    Returns:
        Of the tokenizer's weights, which stay; and the peak of decoding the largest window, between two steps.
    """
    if experiment.trainer.sample_every_steps is None:
        return 0, 0
    tokenizer = experiment.tokenizer
    peak = max(decoding_bytes(video, tokenizer) for video in experiment.windows)
    return TOKENIZER_PARAMETERS * width_of(tokenizer), peak
