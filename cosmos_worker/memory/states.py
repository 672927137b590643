"""Shapes of all matrices of the network, and which of them have moments of 8 bits or products in float8. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from cosmos_worker.config.experiment import (
    Experiment,
    NetConfig,
)
from cosmos_worker.config.float8_sizes import FLOAT8_MULTIPLE
from cosmos_worker.config.optimizer_states import has_8bit_states
from cosmos_worker.config.training import LoraConfig

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
