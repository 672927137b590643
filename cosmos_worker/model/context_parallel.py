"""Context parallelism: the processes of a group each have some frames of the same samples.

Tokens are ordered by frame, so a share is a slice. Only self-attention looks beyond it, at keys and values of all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def own_frames(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """The slice of this process along ``dim``, whose size the group's must divide."""
    return x.chunk(group.size(), dim)[group.rank()]


def _all_gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    shares = x.new_empty(group.size(), *x.shape)
    dist.all_gather_into_tensor(shares.flatten(0, 1), x.contiguous(), group=group)
    return torch.cat(shares.unbind(0), dim)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: ProcessGroup) -> Tensor:  # noqa: ANN401 - autograd's
        ctx.dim, ctx.group = dim, group
        return _all_gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        shares = torch.stack(grad.chunk(ctx.group.size(), ctx.dim)).contiguous()
        own = torch.empty_like(shares[0])
        dist.reduce_scatter_tensor(own, shares.flatten(0, 1), group=ctx.group)
        return own, None, None


class _GatherResult(_Gather):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        return own_frames(grad, ctx.dim, ctx.group) * ctx.group.size(), None, None


def gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """All shares along ``dim``, used differently by each process: its gradient is the sum over all of them."""
    out: Tensor = _Gather.apply(x, dim, group)
    return out


def gather_result(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """All shares along ``dim``, of which every process computes the same loss.

    The gradient of a share is scaled by the size of the group, so that the mean over its processes of a parameter's
    gradients, of which each has the part of its frames, is the gradient of the loss.
    """
    out: Tensor = _GatherResult.apply(x, dim, group)
    return out
