"""Tensors that are spread over processes: the part that this process has, and the whole."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor, Shard


def local_part(tensor: Tensor) -> Tensor:
    """The part of this process, sharing memory; the tensor itself if it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill(target: Tensor, whole: Tensor) -> None:
    """Copy this process's part of a whole tensor, such as one of a memory-mapped file, of which only it is read."""
    if not isinstance(target, DTensor):
        target.copy_(whole)
        return
    part = whole
    for mesh_dim, placement in enumerate(target.placements):
        if isinstance(placement, Shard):
            chunks = part.chunk(target.device_mesh.size(mesh_dim), placement.dim)
            rank = target.device_mesh.get_local_rank(mesh_dim)
            part = chunks[rank] if rank < len(chunks) else part.narrow(placement.dim, 0, 0)
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
        whole = part.full_tensor() if isinstance(part, DTensor) else part
        if is_main:
            gathered[name] = whole.to("cpu", copy=True)
    return gathered
