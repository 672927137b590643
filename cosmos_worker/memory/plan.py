"""GPU and host memory of a training before anything is allocated, as plain functions of its options. No torch here.

Weights, gradients, optimizer states and average are exact, activations are estimates; docs/memory.md explains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import CHECKPOINTING, Checkpointing
from cosmos_worker.config.values import GIB
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.activations import activation_bytes, sample_bytes
from cosmos_worker.memory.sizes import (
    BFLOAT_BYTES,
    FLOAT_BYTES,
    NetSize,
    compute_width,
    net_size,
    optimizer_bytes,
    product_parameters,
    saved_bytes,
    tokens_per_sample,
    trained_parameters,
    weight_bytes,
)

Sharding = Literal["none", "full", "hybrid"]
CONTEXT_BYTES = 2 * GIB
"""Estimate of what the CUDA context, NCCL and the workspaces of libraries take of a GPU."""
FRAGMENTATION = 0.05
"""Fraction of a GPU's memory that PyTorch's allocator cannot use."""


@dataclass(frozen=True)
class Setup:
    """A training and the GPUs to plan it for; numbers of GPUs count all nodes, memory is in bytes."""

    experiment: Experiment
    num_gpus: int = 8
    gpus_per_node: int = 8
    gpu_memory: int = 80 * GIB
    sharding: Sharding = "none"
    shard_group_size: int | None = None
    """GPUs that share one copy with hybrid sharding; None = those of a node."""
    context_parallel: int = 1
    """GPUs that compute the latent frames of the same samples."""
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
        return min(self.experiment.trainer.least_micro_batch, self.samples_per_group)


def check_setup(setup: Setup) -> None:
    """Check that batch, GPUs and groups divide.

    Raises:
        ConfigError: lists every problem on a line of its own.
    """
    assert setup.activation_checkpointing in CHECKPOINTING  # chosen before, see choice.py
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
    """Bytes of one GPU at the peak of a step, by part; with sample videos it is the GPU of the main process."""

    setup: Setup
    size: NetSize
    weights: int
    gradients: int
    optimizer: int
    ema: int
    copies: int
    activations: int
    """Estimated peak of the activations of a step."""
    headroom: int
    tokenizer: int = 0
    """Weights of the tokenizer that decodes sample videos; 0 without sample videos."""
    decoding: int = 0
    """Estimated peak of decoding a sample video, which happens between two steps."""

    @property
    def samples(self) -> int:
        """Bytes that sample videos add; between two steps there are neither gradients nor activations."""
        return self.tokenizer + max(0, self.decoding - self.gradients - self.activations)

    @property
    def total(self) -> int:
        """Sum of all parts."""
        states = self.weights + self.gradients + self.optimizer + self.ema
        return states + self.copies + self.activations + self.samples + self.headroom

    @property
    def fits(self) -> bool:
        """True if the GPU has as much memory as the plan needs."""
        return self.total <= self.setup.gpu_memory


def copies_bytes(
    size: NetSize,
    sharded: bool,
    num_gpus: int,
    width: int,
    recomputed: bool = False,
    float8_parameters: int = 0,
) -> int:
    """Bytes of the copies of weights and gradients that exist only while a step computes.

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


def _copies(setup: Setup, size: NetSize, width: int) -> int:
    """Bytes of :func:`copies_bytes` for a setup; of a frozen network only the LoRA matrices have gradients."""
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


def plan_memory(setup: Setup) -> MemoryPlan:
    """The memory of one GPU, by part.

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


# --- host memory ----------------------------------------------------------------------------


def loading_bytes(setup: Setup) -> int:
    """Bytes of host memory while weights are read: pages of the bfloat16 file, which the processes of a node share.

    The system can take these pages back. Weights are copied to the GPU one tensor at a time, so the GPU then holds its
    shard of the weights and nothing more.
    """
    return net_size(setup.experiment.net).parameters * BFLOAT_BYTES


def saving_bytes(setup: Setup) -> int:
    """Bytes of host memory on the main process's node from the beginning of a save until it is written.

    Every process copies the tensors that it writes; together the processes write each tensor once, sharded or not. The
    main process also has the file that it exports; with LoRA the frozen weights too, of which some are merged in
    float32.
    """
    ema = setup.experiment.ema.enabled
    share = ceil(saved_bytes(setup.experiment) / setup.num_gpus)
    whole = net_size(setup.experiment.net).parameters * FLOAT_BYTES
    file = whole if ema else whole // FLOAT_BYTES * BFLOAT_BYTES
    frozen = whole if setup.experiment.lora.rank else 0
    return min(setup.num_gpus, setup.gpus_per_node) * share + frozen + file
