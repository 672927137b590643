"""Tensors that are sharded over processes (DTensor): the shard of this process, and the whole tensor.

PyTorch's DTensor and FSDP2 take seconds to import, so they are recognised here by their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """True if a tensor is a DTensor."""
    return hasattr(tensor, "placements")


def is_sharded(model: nn.Module) -> TypeGuard[FSDPModule]:
    """True if FSDP2 has sharded a network."""
    return hasattr(model, "set_requires_all_reduce")


def reshard(model: nn.Module) -> None:
    """Free the whole weights that a sharded network has gathered, so that changes to its shards take effect."""
    if is_sharded(model):
        model.reshard()


def local_part(tensor: Tensor) -> Tensor:
    """The shard of this process, sharing memory; the tensor itself if it is not a DTensor."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def copy_own_shard(target: Tensor, whole: Tensor) -> None:
    """Copy this process's shard of a whole tensor; of a tensor in a memory-mapped file nothing else is read."""
    if not is_dtensor(target):
        target.copy_(whole)
        return
    part = whole
    for mesh_dim, placement in enumerate(target.placements):
        if placement.is_shard(dim=0):  # FSDP2 cuts along the first dimension
            chunks = part.chunk(target.device_mesh.size(mesh_dim))
            rank = target.device_mesh.get_local_rank(mesh_dim)
            part = chunks[rank] if rank < len(chunks) else part[:0]
    target.to_local().copy_(part)


def gather_to_main(tensors: Mapping[str, Tensor], is_main: bool) -> dict[str, Tensor]:
    """Gather tensors one after the other on the CPU of the main process; elsewhere nothing. All processes call this.

    Args:
        tensors: by name, in the same order in all processes.
        is_main: this process gets the whole tensors.
    """
    gathered = {}
    for name, tensor in tensors.items():
        part = tensor.detach()
        whole = part.full_tensor() if is_dtensor(part) else part
        if is_main:
            gathered[name] = whole.to("cpu", copy=True)
    return gathered
