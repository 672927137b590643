"""Context parallelism: each process of a group computes some latent frames of the same samples.

Tokens are ordered by frame, so the frames of a process are a slice of the tokens. Only self-attention needs the other
frames: it gathers keys and values of all.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def own_frames(x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """The slice of this process along ``dim``, whose size must be a multiple of the group's."""
    return x.chunk(group.size(), dim)[group.rank()]


def _all_gather(x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    slices = x.new_empty(group.size(), *x.shape)
    dist.all_gather_into_tensor(slices.flatten(0, 1), x.contiguous(), group=group)
    return torch.cat(slices.unbind(0), dim)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:  # noqa: ANN401 - autograd's
        ctx.dim, ctx.group = dim, group
        return _all_gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        slices = torch.stack(grad.chunk(ctx.group.size(), ctx.dim)).contiguous()
        own = torch.empty_like(slices[0])
        dist.reduce_scatter_tensor(own, slices.flatten(0, 1), group=ctx.group)
        return own, None, None


class _GatherResult(_Gather):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        return own_frames(grad, ctx.dim, ctx.group) * ctx.group.size(), None, None


def gather(x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """The slices of all processes along ``dim``; processes use them differently, so gradients are added up."""
    out: Tensor = _Gather.apply(x, dim, group)
    return out


def gather_result(x: Tensor, dim: int, group: dist.ProcessGroup) -> Tensor:
    """The slices of all processes along ``dim``, from which every process computes the same loss.

    The gradient of a slice is scaled by the size of the group. Each process then has the part of a parameter's gradient
    that comes from its frames, times the size, so that the mean over the processes is the gradient of the loss.
    """
    out: Tensor = _GatherResult.apply(x, dim, group)
    return out
