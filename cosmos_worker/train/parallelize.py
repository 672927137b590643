"""Applies to the plain network, from outside: FSDP2, DDP, context parallelism, activation checkpointing, kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from cosmos_worker.config.experiment import Experiment, obstacles_to_compiling
from cosmos_worker.config.flops import run_flops
from cosmos_worker.config.training import CHECKPOINTING, AccelerationConfig, ParallelConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.compiled_blocks import compile_blocks, decide_to_compile
from cosmos_worker.model.dit import CosmosModel, RunBlock, call
from cosmos_worker.model.dtensor import is_sharded
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.attention import use_attention
from cosmos_worker.train.float8 import use_float8
from cosmos_worker.train.transformer_engine import use_engine_float8

aten = torch.ops.aten
KEPT_OPERATIONS = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten.bmm.default,
        aten._scaled_mm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)
"""Operations whose results selective activation checkpointing keeps, so that they are not computed twice."""
CPU_FLOPS_THAT_PAY = 10**15
"""Operations of a training from which on blocks are compiled on a CPU: three to five hours of one core in float32, in
bfloat16 half of that or less; compiling takes a minute or two."""


def share_frames(experiment: Experiment, processes: ProcessGroup) -> ProcessGroup:
    """The processes with the context groups that ``parallel.context_parallel`` asks for; every process calls this.

    Raises:
        ConfigError: the option does not divide the processes, or the latent frames of a window.
    """
    size, num_processes = experiment.parallel.context_parallel, processes.world_size
    if num_processes % size:
        raise ConfigError(
            f"parallel.context_parallel: {size} does not divide the {num_processes} processes"
        )
    for video in experiment.windows:
        frames = experiment.latent_frames(video)
        if frames % size:
            raise ConfigError(
                f"parallel.context_parallel: {size} does not divide the {frames} latent frames"
            )
    return processes.with_context_parallel(size)


def form_shard_mesh(config: ParallelConfig, processes: ProcessGroup) -> DeviceMesh | None:
    """The processes that FSDP2 cuts the parameters into shards for; every process calls this.

    Returns:
        With sharding full one axis, (shards,); with hybrid two, (copies, shards); None = every process has all.

    Raises:
        ConfigError: ``parallel.shard_group_size`` does not divide the processes.
    """
    size, device = processes.world_size, processes.device_type
    if config.sharding == "none" or size == 1:
        return None
    if config.sharding == "full":
        return init_device_mesh(device, (size,))
    group = config.shard_group_size or processes.local_world_size
    if size % group or group % config.context_parallel:
        raise ConfigError(
            f"parallel.shard_group_size: {group} must divide the {size} processes and be a multiple of "
            f"parallel.context_parallel {config.context_parallel}"
        )
    return init_device_mesh(device, (size // group, group), mesh_dim_names=("copies", "shards"))


def parallelize(
    model: CosmosModel,
    config: ParallelConfig,
    processes: ProcessGroup,
    shard_mesh: DeviceMesh | None,
    product_dtype: torch.dtype,
) -> None:
    """Apply context parallelism and FSDP2 in place, before the network has weights.

    Args:
        model: on the meta device if it is to be sharded; DDP is added by :func:`replicate` once it has weights.
        config: options.
        processes: of :func:`share_frames`.
        shard_mesh: of :func:`form_shard_mesh`; None = not sharded.
        product_dtype: dtype of matrix products, in which the weights of sharded blocks are gathered.
    """
    if processes.context.handle is not None:
        model.net.share_frames(processes.context.handle)
    if shard_mesh is None:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # takes seconds

    policy = MixedPrecisionPolicy(
        param_dtype=product_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.net.blocks.values():
        fully_shard(block, mesh=shard_mesh, mp_policy=policy)
    fully_shard(model, mesh=shard_mesh)


def run_blocks(model: CosmosModel, experiment: Experiment, device: torch.device) -> bool:
    """Let the blocks keep or compute again their activations, and compile them if the experiment says so, in place.

    Args:
        model: with its corrections and kernels, before :func:`parallelize`.
        experiment: options.
        device: where the blocks run.

    Returns:
        True if they are compiled.

    Raises:
        ConfigError: acceleration.compile is enabled, and they cannot be compiled here.
    """
    options, kernels = experiment.parallel, experiment.acceleration
    run = _block_runner(options.activation_checkpointing)
    pays = run_flops(experiment) >= CPU_FLOPS_THAT_PAY
    if decide_to_compile(kernels.compile, device, pays, obstacles_to_compiling(experiment)):
        any_length = experiment.text_padding == "trim"
        is_strict = kernels.compile == "enabled"
        compile_blocks(model.net, run, any_length=any_length, is_strict=is_strict)
        return True
    model.net.run_block = run
    return False


def check_float8_pays(config: AccelerationConfig, device: torch.device, is_compiled: bool) -> None:
    """Check that float8 is not asked of blocks that are not compiled, which are then slower than in bfloat16.

    Raises:
        ConfigError: they are not compiled; on a CPU, where float8 is emulated for trials, this is no error.
    """
    if config.linear == "float8" and device.type == "cuda" and not is_compiled:
        raise ConfigError(
            "acceleration.linear: 'float8' without compiled blocks is slower than bfloat16, and the blocks are not "
            "compiled here (the log says why); use 'plain', or remove what prevents compiling"
        )


def replicate(model: CosmosModel, processes: ProcessGroup) -> nn.Module:
    """The module to call in training: DDP around the network, or the network itself if it is sharded or alone."""
    if processes.world_size == 1 or is_sharded(model):
        return model
    # gradients lie in the buckets that are reduced, so none is copied there and back
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def _block_runner(kind: str) -> RunBlock:
    assert kind in CHECKPOINTING  # chosen before, see gpu_choice.py
    if kind == "none":
        return call
    if kind == "block":
        return partial(_run_checkpointed, {})
    contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    return partial(_run_checkpointed, {"context_fn": contexts})


def _run_checkpointed(
    options: Mapping[str, Any], block: Callable[..., Tensor], *inputs: object
) -> Tensor:
    if not torch.is_grad_enabled():
        return call(block, *inputs)
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **options)


def _keep_products(
    ctx: object, operation: object, *args: object, **kwargs: object
) -> CheckpointPolicy:
    keep = operation in KEPT_OPERATIONS
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def accelerate(model: CosmosModel, config: AccelerationConfig, device: torch.device) -> None:
    """Replace kernels of attention and linear layers in place, before sharding; weights keep names and shapes.

    Raises:
        ConfigError: an option needs a library or device that is missing.
    """
    if config.linear == "float8":
        use_float8(model, device)
    elif config.linear == "transformer_engine_float8":
        use_engine_float8(model, device)
    use_attention(model, config.attention, device)
