"""The numbers of a training: optimizer and its learning rate, average, LoRA, trainer, processes, kernels.

No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cosmos_worker.config.values import (
    Fraction,
    Model,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
)


class OptimizerConfig(Model):
    """AdamW, its schedule and clipping."""

    learning_rate: PositiveFloat = 2**-14.3
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay, on all parameters as in the reference."""
    beta1: Fraction = 0.9
    """Decay of the first moment."""
    beta2: Fraction = 0.99
    """Decay of the second moment."""
    eps: PositiveFloat = 1e-10
    """Added to the root of the second moment."""
    implementation: Literal["torch", "apex"] = "torch"
    """Implementation of the update: PyTorch's fused AdamW, or apex's FusedAdam, which must be installed and needs CUDA
    and parallel.sharding=none."""
    state_bits: Literal[32, 8] = 32
    """Bits of each moment. 8 takes a quarter of the memory, rounds by blocks of 256 values, and needs torchao; weights
    whose rows are not whole blocks keep float32."""
    clip_norm: PositiveFloat = 1.0
    """Largest global gradient norm."""
    warmup_steps: NonNegativeInt | None = None
    """Steps of linear warm-up; null = min(2500, 5 % of max_steps), of the first max_steps where a run of a constant
    rate is continued to another. The reference has 2500."""
    final_factor: Fraction = 1.0
    """Learning rate factor at max_steps, reached linearly from decay_start; 1 = constant."""
    decay_start: Fraction = 0.0
    """Share of max_steps after which the linear decay begins (never before the warm-up ends)."""

    @model_validator(mode="after")
    def _has_states(self) -> Self:
        if self.implementation == "apex" and self.state_bits != 32:
            raise ValueError(
                f"state_bits: {self.state_bits} is not in apex; use implementation=torch, or state_bits=32"
            )
        return self


class EmaConfig(Model):
    """Power-function exponential moving average (EDM2)."""

    enabled: bool = True
    """Keep an average of the weights."""
    rate: Annotated[float, Field(gt=0, lt=0.28)] = 0.1
    """Width of the average as a fraction of the steps done (sigma_rel of Karras et al. 2024, EDM2)."""


class LoraConfig(Model):
    """Low-rank adaptation: the network is frozen, and some of its layers learn a small correction.

    Exported weights contain it, and it lies beside them alone.
    """

    rank: NonNegativeInt = 0
    """Rank of the corrections; 0 = no adaptation, all weights are trained."""
    alpha: PositiveFloat = 8.0
    """Corrections are scaled by alpha / rank."""
    targets: Annotated[tuple[Literal["q", "k", "v", "out", "mlp"], ...], Field(min_length=1)] = (
        "q",
        "v",
    )
    """Layers that learn: queries, keys, values and output of both attentions of a block, and its MLP."""


TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class TrainerConfig(Model):
    """Length of a run, and what is logged, validated, sampled and saved on the way."""

    max_steps: PositiveInt = 2000
    """Optimizer steps."""
    global_batch_size: PositiveInt = 8
    """Samples per optimizer step over all processes."""
    micro_batch_size: PositiveInt | Literal["auto"] = 1
    """Samples per forward pass of one process; fewer take less memory, and the result is the same but for rounding.
    auto: as many as fit into the GPU that is there, by the estimate of `cosmos-worker plan`; without a GPU 1."""
    save_every_steps: PositiveInt = 500
    """Steps between checkpoints."""
    save_every_minutes: PositiveInt | None = None
    """Minutes since the last checkpoint after which another one is written, to resume from: without exported weights;
    null = never."""
    keep_last: PositiveInt = 2
    """Checkpoints to resume from that are kept; exported weights are kept by keep_exports."""
    keep_exports: PositiveInt = 4
    """Exported iter_*_model.pt sets that are kept."""
    log_every_steps: PositiveInt = 10
    """Steps between log lines."""
    validate_every_steps: PositiveInt | None = None
    """Steps between held-out losses, beside those before the first step and after the last; null = only these."""
    validation_windows: PositiveInt | None = 64
    """Held-out windows whose loss is taken, spread over the held-out clips and the same each time; null = all."""
    validation_draws: PositiveInt = 1
    """Fixed noise draws per held-out window."""
    validation_sigmas: Annotated[tuple[PositiveFloat, ...], Field(max_length=64)] = ()
    """Noise levels at which each held-out loss is reported separately too; noise, known frames and text are the same in
    every run, so that runs and experiments can be compared."""
    keep_best: bool = False
    """Measure the held-out loss at every checkpoint, and keep the checkpoint and exports with the lowest: that of the
    averaged weights where there is an average."""
    sample_every_steps: PositiveInt | None = None
    """Steps between sample videos of held-out windows, the first before training; null = none."""
    sample_count: PositiveInt = 2
    """Held-out windows that are sampled, the first ones."""
    sample_steps: PositiveInt = 10
    """Sampler steps of a sample video."""
    trackers: tuple[TrackerName, ...] | None = None
    """Trackers that receive figures and sample videos beside metrics.jsonl; null = tensorboard, if it is installed."""
    seed: Seed = 0
    """Seed of the data order, the noise and fresh weights."""
    init: Literal["checkpoint", "random"] = "checkpoint"
    """Start from the model's weights or from random ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device; auto = CUDA if there is one."""
    threads_per_process: PositiveInt | None = None
    """CPU threads of each process; null = leave to PyTorch."""

    @property
    def least_micro_batch(self) -> int:
        """Samples of a forward pass: as configured, or 1 as long as the memory has not decided."""
        return 1 if self.micro_batch_size == "auto" else self.micro_batch_size

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for name in ("validation_sigmas", "trackers"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {list(values)} names one twice; name each once")
        return self


class ParallelConfig(Model):
    """Distribution of a run over its processes, which changes the result by rounding only."""

    sharding: Literal["none", "full", "hybrid"] = "none"
    """none: every process has all weights (DDP); full: weights, gradients, optimizer and average are spread over all
    processes (FSDP2); hybrid: over groups of shard_group_size, each with a copy."""
    shard_group_size: PositiveInt | None = None
    """Processes per copy with hybrid sharding; null = those of one node."""
    context_parallel: PositiveInt = 1
    """Neighbouring processes that share the latent frames of a sample, for long videos; must divide the frames."""
    activation_checkpointing: Literal["auto", "none", "block", "selective"] = "none"
    """Activations that are not kept but computed again in the backward pass: none, those of every block, or (selective)
    all but the results of matrix products and attention. auto: the first of none, selective and block that fits into
    the GPU that is there, by the estimate of `cosmos-worker plan`; without a GPU none."""


Checkpointing = Literal["none", "selective", "block"]
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "block")
"""Kinds of activation checkpointing, from that which computes least again to that which keeps least."""

AttentionKernel = Literal["auto", "torch", "cudnn", "flash_attention_3", "transformer_engine"]
CompileChoice = Literal["auto", "enabled", "disabled"]


class AccelerationConfig(Model):
    """Faster kernels, compiled here or of libraries that need not be installed; asked for and absent is an error."""

    attention: AttentionKernel = "auto"
    """Kernel of attention in training; results differ by rounding. torch: PyTorch's kernels in its own order. cudnn:
    the same with cuDNN's first. flash_attention_3: the package flash_attn_interface, on Hopper. All but torch need CUDA
    and bfloat16. auto: on Hopper in bfloat16 flash_attention_3 if it is installed, else cudnn; elsewhere torch."""
    linear: Literal["plain", "float8", "transformer_engine_float8"] = "plain"
    """float8: products of the blocks' attention and MLP layers in float8 with one scale per tensor, forward and
    backward, by torchao; needs compiled blocks and a GPU of compute capability 8.9, and is emulated on a CPU.
    transformer_engine_float8: the same by Transformer Engine 2.16 or later; needs such a GPU, sides and tokens of
    each sample that are multiples of 16, and no selective activation checkpointing. Neither with LoRA."""
    compile: CompileChoice = "auto"
    """torch.compile of each block, in training and in sampling; results differ by rounding. auto: on CUDA, and on a CPU
    in trainings that are long enough to make up for the minutes of compiling; blocks run as they are, and the log
    says why, where they cannot be compiled, as without a C++ compiler. enabled: such a thing is an error."""


BLOCK_SIZE = 256
"""Neighbouring values of a row that share one scale."""
MIN_VALUES = 4096
"""Smaller tensors keep float32: they save nothing."""
SCALE_BYTES = 4


def has_8bit_states(shape: Sequence[int]) -> bool:
    """True if the moments of a parameter can be quantised: a matrix whose rows are whole blocks.

    Processes share a matrix by rows, so no block is cut.
    """
    return len(shape) > 1 and shape[-1] % BLOCK_SIZE == 0 and prod(shape) >= MIN_VALUES


def moment_bytes(num_quantised: int, num_others: int) -> int:
    """Both moments of parameters whose moments are quantised, and of the others."""
    scales = num_quantised // BLOCK_SIZE * SCALE_BYTES
    return 2 * (num_quantised + scales + num_others * 4)


WARMUP_SHARE = 0.05
START_FACTOR = 1e-6
"""Factor of the learning rate at step 0, as in the reference."""
REFERENCE_WARMUP_STEPS = 2500


def warmup_steps(config: OptimizerConfig, max_steps: int) -> int:
    """Steps of warm-up: as configured, else min(2500, 5 % of max_steps)."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return min(REFERENCE_WARMUP_STEPS, round(WARMUP_SHARE * max_steps))


def decays(config: OptimizerConfig) -> bool:
    """True if the learning rates depend on the length of the run, as they fall towards its end."""
    return config.final_factor != 1 and config.decay_start < 1


def describe_schedule(config: OptimizerConfig, max_steps: int) -> str:
    """The schedule in words, such as ``warm-up of 20 steps, constant to step 280, linear to 0 at step 700``."""
    warmup = warmup_steps(config, max_steps)
    if not decays(config):
        return f"warm-up of {warmup} steps, then constant"
    begin = max(warmup, round(config.decay_start * max_steps))
    constant = f"constant to step {begin}, " if begin > warmup else ""
    final = config.learning_rate * config.final_factor
    return f"warm-up of {warmup} steps, {constant}linear to {final:g} at step {max_steps}"


def learning_rate(config: OptimizerConfig, max_steps: int, step: int) -> float:
    """Learning rate of optimizer update number ``step``, counted from 0.

    Linear from START_FACTOR to 1 over the warm-up, constant, then linear to final_factor at max_steps.

    Source: cosmos-predict1 LambdaLinearScheduler (constant after warm-up).
    """
    warmup = warmup_steps(config, max_steps)
    if step < warmup:
        factor = START_FACTOR + (1 - START_FACTOR) * step / warmup
    else:
        begin = max(warmup, round(config.decay_start * max_steps))
        done = min(1.0, max(0.0, (step - begin) / max(1, max_steps - begin)))
        factor = 1 + (config.final_factor - 1) * done
    return config.learning_rate * factor
