"""Numbers of parameters, tokens and bytes of a training, computed from its options. No torch here.

All are exact and the same on any number of GPUs. Shapes of the tokenizer are those of CV8x8x8, see
``tokenizer/network.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import LATENT_SCALE, NetConfig, VideoConfig
from cosmos_worker.config.training import LoraConfig, has_8bit_states, moment_bytes
from cosmos_worker.config.values import FLOAT8_MULTIPLE

FLOAT_BYTES = 4
BFLOAT_BYTES = 2
FLOAT8_BYTES = 1
MASK_CHANNELS = 2
"""Condition mask and padding mask beside the latent's channels."""

# --- parameters -----------------------------------------------------------------------------


@dataclass(frozen=True)
class NetSize:
    """Numbers of parameters of the network without its uncertainty head, and of the tensors in its weight file."""

    block_parameters: int
    """Parameters of one block."""
    outer_parameters: int
    """Parameters outside all blocks."""
    num_blocks: int
    entries: int
    """Tensors of the weight file."""

    @property
    def parameters(self) -> int:
        """Parameters of the whole network."""
        return self.outer_parameters + self.num_blocks * self.block_parameters


def net_size(net: NetConfig) -> NetSize:
    """Count parameters; ``extra_pos_emb: auto`` counts as present, as in released Video2World files."""
    D, K, text, lora = net.model_channels, net.head_dim, net.text_channels, net.adaln_lora_dim
    modulation = 3 * (D * lora + lora * 3 * D)
    self_attention = 4 * D * D + 2 * K
    cross_attention = 2 * D * D + 2 * text * D + 2 * K
    mlp = 2 * D * int(D * net.mlp_ratio)
    patch, rows = net.patch_size**2, net.max_latent_size // net.patch_size
    has_positions = net.extra_pos_emb != "none"
    positions = (net.max_latent_frames + 2 * rows) * D if has_positions else 0
    embedding = patch * (net.latent_channels + MASK_CHANNELS) * D
    timestep = D * D + 3 * D * D + D
    final = patch * net.latent_channels * D + D * lora + lora * 2 * D
    return NetSize(
        modulation + self_attention + cross_attention + mlp,
        embedding + positions + timestep + final,
        net.num_blocks,
        entries=20 * net.num_blocks + 8 + (3 if has_positions else 0),
    )


def lora_parameters(net: NetConfig, lora: LoraConfig) -> int:
    """Parameters of the LoRA matrices: rank times (in + out) of every adapted layer."""
    D, text = net.model_channels, net.text_channels
    own = 2 * D  # of a square layer
    sums = {"q": 2 * own, "k": own + text + D, "v": own + text + D, "out": 2 * own}
    sums["mlp"] = 2 * (D + int(D * net.mlp_ratio))
    return net.num_blocks * lora.rank * sum(sums[target] for target in lora.targets)


def trained_parameters(experiment: Experiment) -> int:
    """Parameters with gradients and optimizer states, without the uncertainty head."""
    if experiment.lora.rank:
        return lora_parameters(experiment.net, experiment.lora)
    return net_size(experiment.net).parameters


# --- shapes of weights ----------------------------------------------------------------------


Shape = tuple[int, int]
Shapes = Iterator[tuple[int, Shape]]
"""Pairs of a count and a shape (out, in): so many matrices have this shape."""


def product_shapes(net: NetConfig) -> Shapes:
    """Matrices of one block whose products can be in float8: projections of both attentions, and the MLP."""
    D, hidden = net.model_channels, int(net.model_channels * net.mlp_ratio)
    yield 6, (D, D)
    yield 2, (D, net.text_channels)
    yield 1, (hidden, D)
    yield 1, (D, hidden)


def matrix_shapes(net: NetConfig) -> Shapes:
    """All matrices of the network's weights."""
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
    """All LoRA matrices."""
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
    """Parameters whose optimizer moments have 8 bits."""
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


# --- tokens ---------------------------------------------------------------------------------


def window_tokens(experiment: Experiment, video: VideoConfig) -> int:
    """Tokens of a window: its latent frames times its rows and columns in patches."""
    scale = LATENT_SCALE * experiment.net.patch_size
    return experiment.latent_frames(video) * (video.height // scale) * (video.width // scale)


def largest_window(experiment: Experiment) -> VideoConfig:
    """The window with the most tokens, which decides the memory."""
    return max(experiment.windows, key=lambda video: window_tokens(experiment, video))


def tokens_per_sample(experiment: Experiment) -> int:
    """Tokens of the largest window."""
    return window_tokens(experiment, largest_window(experiment))


# --- bytes ----------------------------------------------------------------------------------


def compute_width(experiment: Experiment) -> int:
    """Bytes of the dtype of matrix products on a GPU."""
    return FLOAT_BYTES if experiment.diffusion.compute_dtype == "float32" else BFLOAT_BYTES


def weight_bytes(experiment: Experiment, width: int) -> int:
    """Bytes of all weights: float32, but frozen blocks in the compute type, of ``width`` bytes."""
    size = net_size(experiment.net)
    if not experiment.lora.rank:
        return size.parameters * FLOAT_BYTES
    blocks = size.num_blocks * size.block_parameters
    learned = lora_parameters(experiment.net, experiment.lora)
    return blocks * width + (size.outer_parameters + learned) * FLOAT_BYTES


def optimizer_bytes(experiment: Experiment) -> int:
    """Bytes of both moments of all trained parameters, without the uncertainty head."""
    quantised = quantised_parameters(experiment)
    return moment_bytes(quantised, trained_parameters(experiment) - quantised)


def saved_bytes(experiment: Experiment) -> int:
    """Bytes of a checkpoint: trained weights, optimizer moments and average."""
    kinds = 2 if experiment.ema.enabled else 1
    return trained_parameters(experiment) * kinds * FLOAT_BYTES + optimizer_bytes(experiment)


def checkpoint_bytes(experiment: Experiment) -> int:
    """Bytes of disk of the checkpoints and exports that a run keeps, and of one more of each while it is written."""
    trainer, ema = experiment.trainer, experiment.ema.enabled
    exports = BFLOAT_BYTES + (FLOAT_BYTES if ema else 0)
    states = saved_bytes(experiment) * (trainer.keep_last + 1)
    whole = net_size(experiment.net).parameters * exports
    if experiment.lora.rank:  # adapters beside them, float32
        whole += trained_parameters(experiment) * FLOAT_BYTES * (2 if ema else 1)
    return states + whole * (trainer.keep_exports + 1)
