"""Memory of single parts: moments and float8 products by shape, sample videos while training. No torch here.

Shapes are those of CV8x8x8 (reference facts 6.2). docs/memory.md explains the terms; nothing is measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    Experiment,
    NetConfig,
    TokenizerConfig,
    VideoConfig,
)
from cosmos_worker.config.training import LoraConfig, has_8bit_states
from cosmos_worker.config.values import FLOAT8_MULTIPLE

MASK_CHANNELS = 2
"""Condition mask and padding mask beside the latent's channels."""

Shape = tuple[int, int]
Shapes = Iterator[tuple[int, Shape]]
"""How often there is a matrix, and its shape (out, in)."""


def product_shapes(net: NetConfig) -> Shapes:
    """Projections of both attentions, and the MLP, of one block."""
    D, hidden = net.model_channels, int(net.model_channels * net.mlp_ratio)
    yield 6, (D, D)
    yield 2, (D, net.text_channels)
    yield 1, (hidden, D)
    yield 1, (D, hidden)


def matrix_shapes(net: NetConfig) -> Shapes:
    """All weights that are matrices."""
    D, lora, patch = net.model_channels, net.adaln_lora_dim, net.patch_size**2
    for count, shape in product_shapes(net):
        yield net.num_blocks * count, shape
    yield 3 * net.num_blocks + 1, (lora, D)  # modulations of the blocks, and of the final layer
    yield 3 * net.num_blocks, (3 * D, lora)
    yield 1, (2 * D, lora)
    yield 1, (D, patch * (net.latent_channels + MASK_CHANNELS))
    yield 1, (D, D)  # timestep
    yield 1, (3 * D, D)
    yield 1, (patch * net.latent_channels, D)
    if net.extra_pos_emb != "none":
        yield 1, (net.max_latent_frames, D)
        yield 2, (net.max_latent_size // net.patch_size, D)


def lora_shapes(net: NetConfig, lora: LoraConfig) -> Shapes:
    """All matrices of the corrections."""
    D, hidden = net.model_channels, int(net.model_channels * net.mlp_ratio)
    square, of_text = (D, D), (D, net.text_channels)
    layers: dict[str, tuple[Shape, Shape]] = {
        "q": (square, square),
        "k": (square, of_text),
        "v": (square, of_text),
        "out": (square, square),
        "mlp": ((hidden, D), (D, hidden)),
    }
    for target in lora.targets:
        for out, into in layers[target]:
            yield net.num_blocks, (lora.rank, into)
            yield net.num_blocks, (out, lora.rank)


def quantised_parameters(experiment: Experiment) -> int:
    """Parameters whose moments have 8 bits."""
    if experiment.optimizer.state_bits == 32:
        return 0
    net, lora = experiment.net, experiment.lora
    shapes = lora_shapes(net, lora) if lora.rank else matrix_shapes(net)
    return sum(count * out * into for count, (out, into) in shapes if has_8bit_states((out, into)))


def product_parameters(net: NetConfig) -> int:
    """Parameters of one block whose products can be in float8."""
    return sum(
        count * out * into
        for count, (out, into) in product_shapes(net)
        if not (out % FLOAT8_MULTIPLE or into % FLOAT8_MULTIPLE)
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
