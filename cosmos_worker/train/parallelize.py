"""What is done to the plain network from outside: FSDP2, DDP, context parallelism, checkpointing, kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import AccelerationConfig, ParallelConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel, RunBlock, call
from cosmos_worker.runtime.process_group import Processes
from cosmos_worker.train.float8 import use_float8
from cosmos_worker.train.transformer_engine import (
    use_engine_attention,
    use_engine_float8,
)

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
"""What selective activation checkpointing does not compute twice."""


@dataclass(frozen=True)
class Layout:
    """The place of this process among those that share samples and parameters."""

    data_rank: int = 0
    """Which share of the samples it computes."""
    data_size: int = 1
    """Shares of the samples."""
    context_group: ProcessGroup | None = None
    """Processes with the same samples, each with some of the frames."""
    shard_mesh: DeviceMesh | None = None
    """Processes that share the parameters: (shards,), or (copies, shards)."""


def lay_out(experiment: Experiment, processes: Processes) -> Layout:
    """Form the groups; every process calls this.

    Raises:
        ConfigError: sizes that do not divide.
    """
    config, size = experiment.parallel, processes.world_size
    share = config.context_parallel
    if size % share:
        raise ConfigError(
            f"parallel.context_parallel: {share} does not divide the {size} processes"
        )
    for video in experiment.windows:
        frames = experiment.latent_frames(video)
        if frames % share:
            raise ConfigError(
                f"parallel.context_parallel: {share} does not divide the {frames} latent frames"
            )
    context_group = None
    if share > 1:
        mesh = init_device_mesh(processes.device.type, (size // share, share))
        context_group = mesh.get_group(1)
    return Layout(
        processes.rank // share, size // share, context_group, _shard_mesh(config, processes)
    )


def _shard_mesh(config: ParallelConfig, processes: Processes) -> DeviceMesh | None:
    size, device = processes.world_size, processes.device.type
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


def spread(
    model: CosmosModel, config: ParallelConfig, layout: Layout, product_dtype: torch.dtype
) -> None:
    """Spread the network in place, before it has weights; DDP is added by :func:`replicate`, after.

    Args:
        model: on the meta device if it is to be sharded.
        config: how.
        layout: of the processes.
        product_dtype: of matrix products; the weights of sharded blocks are gathered in it.
    """
    if layout.context_group is not None:
        model.net.share_frames(layout.context_group)
    model.net.run_block = _run_block(config.activation_checkpointing)
    if layout.shard_mesh is None:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # takes seconds

    policy = MixedPrecisionPolicy(
        param_dtype=product_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.net.blocks.values():
        fully_shard(block, mesh=layout.shard_mesh, mp_policy=policy)
    fully_shard(model, mesh=layout.shard_mesh)


def replicate(model: CosmosModel, layout: Layout, processes: Processes) -> nn.Module:
    """What is called to train: the network itself, or DDP around it where it is not sharded."""
    if processes.world_size == 1 or layout.shard_mesh is not None:
        return model
    return DistributedDataParallel(model)


def _run_block(kind: str) -> RunBlock:
    if kind == "none":
        return call
    contexts: Callable[[], Any] = noop_context_fn
    if kind == "selective":
        contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    return partial(_run_again, contexts)


def _run_again(contexts: Callable[[], Any], block: nn.Module, *inputs: object) -> Tensor:
    if not torch.is_grad_enabled():
        return call(block, *inputs)
    return checkpoint(
        partial(call, block),
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=contexts,
    )


def _keep_products(
    ctx: object, operation: object, *args: object, **kwargs: object
) -> CheckpointPolicy:
    keep = operation in KEPT_OPERATIONS
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def accelerate(model: CosmosModel, config: AccelerationConfig, device: torch.device) -> None:
    """Change how layers compute, in place; weights keep names and forms. Before weights are spread.

    Raises:
        ConfigError: a library or device that an option needs is not there.
    """
    if config.linear == "float8":
        use_float8(model, device)
    elif config.linear == "transformer_engine_float8":
        use_engine_float8(model, device)
    if config.attention == "transformer_engine":
        use_engine_attention(model, device)
