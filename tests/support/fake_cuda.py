"""CUDA tensors without a GPU: they have a shape, a type and a device, and no values.

PyTorch checks the devices of an operation's inputs as on a GPU. Numbers, kernels and memory are not tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)


class _MakeUpScalars(TorchDispatchMode):
    """Mode in which values that Python reads from a tensor are one, or true."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype is torch.bool else 1.0 if dtype.is_floating_point else 1
        return func(*args, **(kwargs or {}))


def _zero_gradients(loss: Tensor) -> None:
    """In place of the backward pass, whose engine needs a GPU: gradients of every leaf that the loss depends on."""
    seen: set[Any] = set()
    ahead: list[Any] = [loss.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.zeros_like(leaf) + (0 if leaf.grad is None else leaf.grad)


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tensors of the block have no values; they may be on `CUDA`."""
    monkeypatch.setattr(torch.Tensor, "backward", _zero_gradients)
    # autocast would be switched off where there is no GPU
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    with FakeTensorMode(), _MakeUpScalars():
        yield
