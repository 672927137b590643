"""Tensors that are spread over processes: the part that this process has, and the whole.

PyTorch's DTensor and FSDP2 take seconds to import, so they are known here by what they can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether it is a DTensor."""
    return hasattr(tensor, "placements")


def is_sharded(model: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether FSDP2 has sharded it."""
    return hasattr(model, "set_requires_all_reduce")


def reshard(model: nn.Module) -> None:
    """Let go of weights that a sharded network holds whole since it last ran, so that changes to its parts count."""
    if is_sharded(model):
        model.reshard()


def local_part(tensor: Tensor) -> Tensor:
    """The part of this process, sharing memory; the tensor itself if it is not spread."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def copy_own_shard(target: Tensor, whole: Tensor) -> None:
    """Copy this process's part of a whole tensor, such as one of a memory-mapped file, of which only it is read."""
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
    """Whole tensors on the CPU of the main process, one after the other; nothing elsewhere. All processes call this.

    Args:
        tensors: by name, in the same order everywhere.
        is_main: whether this process gets them.
    """
    gathered = {}
    for name, tensor in tensors.items():
        part = tensor.detach()
        whole = part.full_tensor() if is_dtensor(part) else part
        if is_main:
            gathered[name] = whole.to("cpu", copy=True)
    return gathered
