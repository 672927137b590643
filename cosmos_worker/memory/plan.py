"""GPU memory of a training before anything is allocated: sizes from NetConfig by formula, as plain functions.

States are exact. Activations are an estimate of what autograd keeps; docs/memory.md explains its terms. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    Experiment,
    NetConfig,
    VideoConfig,
)
from cosmos_worker.config.training import LoraConfig, moment_bytes
from cosmos_worker.config.values import GIB
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.parts import (
    MASK_CHANNELS,
    product_parameters,
    quantised_parameters,
    sample_bytes,
)

Sharding = Literal["none", "full", "hybrid"]
Checkpointing = Literal["none", "block", "selective"]

FLOAT_BYTES = 4
BFLOAT_BYTES = 2
FLOAT8_BYTES = 1
CONTEXT_BYTES = 2 * GIB
"""CUDA context, NCCL, workspaces of the libraries."""
FRAGMENTATION = 0.05
"""Share of a GPU's memory that the allocator loses."""


# --- sizes -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetSize:
    """Parameters of the network without its uncertainty head, and keys of its weight file."""

    block_parameters: int
    """Of one block."""
    outer_parameters: int
    """Outside all blocks."""
    num_blocks: int
    entries: int

    @property
    def parameters(self) -> int:
        """Of the whole network."""
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
    """Parameters of the corrections: rank times (in + out) of every layer that learns."""
    D, text = net.model_channels, net.text_channels
    own = 2 * D  # of a square layer
    sums = {"q": 2 * own, "k": own + text + D, "v": own + text + D, "out": 2 * own}
    sums["mlp"] = 2 * (D + int(D * net.mlp_ratio))
    return net.num_blocks * lora.rank * sum(sums[target] for target in lora.targets)


def window_tokens(experiment: Experiment, video: VideoConfig) -> int:
    """Tokens of a window: latent frames, rows and columns in patches."""
    scale = LATENT_SCALE * experiment.net.patch_size
    return experiment.latent_frames(video) * (video.height // scale) * (video.width // scale)


def largest_window(experiment: Experiment) -> VideoConfig:
    """The window with the most tokens, which decides the memory."""
    return max(experiment.windows, key=lambda video: window_tokens(experiment, video))


def tokens_per_sample(experiment: Experiment) -> int:
    """Tokens of the largest window."""
    return window_tokens(experiment, largest_window(experiment))


def saved_bytes(experiment: Experiment) -> int:
    """A checkpoint: weights that are trained, moments and average."""
    kinds = 2 if experiment.ema.enabled else 1
    return trained_parameters(experiment) * kinds * FLOAT_BYTES + optimizer_bytes(experiment)


def checkpoint_bytes(experiment: Experiment) -> int:
    """Disk that a run's kept checkpoints and exports take, one more of each included while it is written."""
    trainer, ema = experiment.trainer, experiment.ema.enabled
    exports = BFLOAT_BYTES + (FLOAT_BYTES if ema else 0)
    states = saved_bytes(experiment) * (trainer.keep_last + 1)
    whole = net_size(experiment.net).parameters * exports
    if experiment.lora.rank:  # adapters beside them, float32
        whole += trained_parameters(experiment) * FLOAT_BYTES * (2 if ema else 1)
    return states + whole * (trainer.keep_exports + 1)


# --- what one GPU holds ----------------------------------------------------------------------


def copies_bytes(
    size: NetSize,
    sharded: bool,
    num_gpus: int,
    width: int,
    recomputed: bool = False,
    float8_parameters: int = 0,
) -> int:
    """Copies of weights and gradients that exist only while a step computes.

    Args:
        size: of the network.
        sharded: blocks are gathered one after the other, the next while one computes; its gradients are in the
            width of the compute type, then float32 to be reduced.
        num_gpus: above 1 and not sharded, gradients have a second copy in the buckets of the all-reduce.
        width: bytes of the compute type; autocast rounds the weights of layers that are not sharded.
        recomputed: blocks are computed again in the backward pass, so that only one has rounded weights at a time.
        float8_parameters: of a block, of layers that compute in float8 and are not rounded before.
    """
    if sharded:
        gathered = 2 * size.block_parameters + size.outer_parameters
        return gathered * width + size.block_parameters * (width + FLOAT_BYTES)
    blocks = 1 if recomputed else size.num_blocks
    weights = size.outer_parameters + blocks * (size.block_parameters - float8_parameters)
    rounded = weights * width if width < FLOAT_BYTES else 0
    return rounded + (size.parameters * FLOAT_BYTES if num_gpus > 1 else 0)


def block_activation_bytes(
    net: NetConfig, tokens: int, text_tokens: int, width: int, float8_inputs: bool = False
) -> int:
    """What autograd keeps of one block for its backward pass; the same arithmetic as ``model/layers.py``.

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
    """What stays of each block until its backward pass; arguments of :func:`block_activation_bytes`.

    block: its float32 input. selective: also the results of matrix products and attention.
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
    """Estimated peak of activations; arguments of :func:`block_activation_bytes`.

    The kept part of all blocks, the rest of the block that is recomputed, the gradients inside it, and the layers
    outside the blocks.
    """
    D = net.model_channels
    kept = kept_block_bytes(net, tokens, text_tokens, width, checkpointing, float8_inputs)
    recomputed = block_activation_bytes(net, tokens, text_tokens, width, float8_inputs) - kept
    gradients = int(tokens * D * (2 * net.mlp_ratio * width + 2 * FLOAT_BYTES))
    positions = 0 if net.extra_pos_emb == "none" else FLOAT_BYTES
    rotation = 2 * FLOAT_BYTES * tokens * net.head_dim
    outside = tokens * D * (positions + 2 * FLOAT_BYTES + width) + rotation
    return net.num_blocks * kept + recomputed + gradients + outside


# --- plan ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What to plan for. Bytes; numbers of GPUs over all nodes."""

    experiment: Experiment
    num_gpus: int = 8
    gpus_per_node: int = 8
    gpu_memory: int = 80 * GIB
    sharding: Sharding = "none"
    shard_group_size: int | None = None
    """GPUs that share one copy with hybrid sharding; None = those of a node."""
    context_parallel: int = 1
    """GPUs that share the tokens of one sample."""
    activation_checkpointing: Checkpointing = "none"

    @property
    def num_shards(self) -> int:
        """GPUs that share one copy of the states."""
        if self.sharding == "none":
            return 1
        if self.sharding == "full":
            return self.num_gpus
        return self.shard_group_size or self.gpus_per_node

    @property
    def data_parallel(self) -> int:
        """Groups of GPUs that see different samples."""
        return self.num_gpus // self.context_parallel

    @property
    def samples_per_group(self) -> int:
        """Samples of a step that one group of context-parallel GPUs computes."""
        return self.experiment.trainer.global_batch_size // self.data_parallel

    @property
    def micro_batch_size(self) -> int:
        """Samples of one forward pass, as the trainer chooses it."""
        return min(self.experiment.trainer.micro_batch_size, self.samples_per_group)


def check_setup(setup: Setup) -> None:
    """Refuse numbers that do not divide.

    Raises:
        ConfigError: with every problem, one line each.
    """
    problems = []
    gpus, node, batch = setup.num_gpus, setup.gpus_per_node, setup.experiment.trainer
    if gpus > node and gpus % node:
        problems.append(f"gpus: {gpus} do not fill nodes of {node}; use a multiple of {node}")
    if setup.sharding == "hybrid" and gpus % setup.num_shards:
        problems.append(
            f"shard group size: {setup.num_shards} does not divide {gpus} GPUs; use a divisor, or sharding full"
        )
    linear = setup.experiment.acceleration.linear
    if linear == "transformer_engine_float8" and setup.activation_checkpointing == "selective":
        problems.append(
            f"activation checkpointing: selective cannot keep the results of acceleration.linear {linear!r}; use block"
        )
    if gpus % setup.context_parallel:
        problems.append(
            f"context parallel: {setup.context_parallel} does not divide {gpus} GPUs; use a divisor"
        )
    elif batch.global_batch_size % setup.data_parallel:
        problems.append(
            f"trainer.global_batch_size: {batch.global_batch_size} is not a multiple of the {setup.data_parallel} "
            f"groups that see different samples ({gpus} GPUs, context parallel {setup.context_parallel}); "
            f"use a multiple of {setup.data_parallel}, or fewer GPUs"
        )
    elif setup.samples_per_group % setup.micro_batch_size:
        problems.append(
            f"trainer.micro_batch_size: {setup.micro_batch_size} does not divide the {setup.samples_per_group} "
            "samples of each process; use a divisor"
        )
    if problems:
        raise ConfigError("\n".join(problems))


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one GPU holds at the peak of a step; with sample videos the main process's."""

    setup: Setup
    size: NetSize
    weights: int
    gradients: int
    optimizer: int
    ema: int
    copies: int
    activations: int
    """Estimate."""
    headroom: int
    tokenizer: int = 0
    """Weights of what decodes sample videos; 0 if there are none."""
    decoding: int = 0
    """Estimate of the peak of decoding, between two steps."""

    @property
    def samples(self) -> int:
        """What sample videos add: between two steps there are neither gradients nor activations."""
        return self.tokenizer + max(0, self.decoding - self.gradients - self.activations)

    @property
    def total(self) -> int:
        """Sum of all parts."""
        states = self.weights + self.gradients + self.optimizer + self.ema
        return states + self.copies + self.activations + self.samples + self.headroom

    @property
    def fits(self) -> bool:
        """Whether the GPU has that much."""
        return self.total <= self.setup.gpu_memory


def trained_parameters(experiment: Experiment) -> int:
    """Parameters with gradients and optimizer states, without the uncertainty head."""
    if experiment.lora.rank:
        return lora_parameters(experiment.net, experiment.lora)
    return net_size(experiment.net).parameters


def optimizer_bytes(experiment: Experiment) -> int:
    """Both moments of all parameters that are trained, without the uncertainty head."""
    quantised = quantised_parameters(experiment)
    return moment_bytes(quantised, trained_parameters(experiment) - quantised)


def weight_bytes(experiment: Experiment, width: int) -> int:
    """All weights: float32, but those of frozen blocks in the compute type."""
    size = net_size(experiment.net)
    if not experiment.lora.rank:
        return size.parameters * FLOAT_BYTES
    blocks = size.num_blocks * size.block_parameters
    learned = lora_parameters(experiment.net, experiment.lora)
    return blocks * width + (size.outer_parameters + learned) * FLOAT_BYTES


def _copies(setup: Setup, size: NetSize, width: int) -> int:
    """Copies while a step computes; of a frozen network only the corrections have gradients."""
    if not setup.experiment.lora.rank:
        is_float8 = setup.experiment.acceleration.linear == "float8"
        return copies_bytes(
            size,
            setup.num_shards > 1,
            setup.num_gpus,
            width,
            setup.activation_checkpointing != "none",
            product_parameters(setup.experiment.net) if is_float8 else 0,
        )
    trained = trained_parameters(setup.experiment)
    if setup.num_shards > 1:
        return (2 * size.block_parameters + size.outer_parameters) * width
    rounded = (size.outer_parameters + trained) * width if width < FLOAT_BYTES else 0
    return rounded + (trained * FLOAT_BYTES if setup.num_gpus > 1 else 0)


def compute_width(experiment: Experiment) -> int:
    """Bytes of the type of matrix products on a GPU."""
    return FLOAT_BYTES if experiment.diffusion.compute_dtype == "float32" else BFLOAT_BYTES


def plan_memory(setup: Setup) -> MemoryPlan:
    """The memory of one GPU by part.

    Raises:
        ConfigError: numbers that do not divide.
    """
    check_setup(setup)
    experiment, size = setup.experiment, net_size(setup.experiment.net)
    width = compute_width(experiment)
    own = ceil(trained_parameters(experiment) / setup.num_shards)
    samples = setup.micro_batch_size
    tokens = ceil(samples * tokens_per_sample(experiment) / setup.context_parallel)
    tokenizer, decoding = sample_bytes(experiment)
    return MemoryPlan(
        setup,
        size,
        weights=ceil(weight_bytes(experiment, width) / setup.num_shards),
        gradients=own * FLOAT_BYTES,
        optimizer=ceil(optimizer_bytes(experiment) / setup.num_shards),
        ema=own * FLOAT_BYTES if experiment.ema.enabled else 0,
        copies=_copies(setup, size, width),
        activations=activation_bytes(
            experiment.net,
            tokens,
            samples * experiment.text.max_length,
            width,
            setup.activation_checkpointing,
            experiment.acceleration.linear == "transformer_engine_float8",
        ),
        headroom=CONTEXT_BYTES + int(FRAGMENTATION * setup.gpu_memory),
        tokenizer=tokenizer,
        decoding=decoding,
    )
