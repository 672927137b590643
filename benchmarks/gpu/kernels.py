"""Kernels of attention by name: PyTorch's, each alone, and FlashAttention 3 where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.worker import NotHere
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.layers import Attention

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
ON_GPUS = ("cudnn", "efficient")
FLASH3 = "flash3"
FLASH3_PACKAGE = "flash_attn_interface"
"""The package of FlashAttention 3."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def names() -> tuple[str, ...]:
    """All kernels."""
    return (*BACKENDS, FLASH3)


@contextmanager
def chosen(name: str, device: torch.device) -> Iterator[Attend]:
    """Inside, the yielded function computes attention with this kernel alone; ``default`` = as PyTorch chooses.

    q (B, N, L, K), k and v (B, N, S, K) → (B, N, L, K).

    Raises:
        NotHere: FlashAttention 3 is not installed, or PyTorch has the kernel on GPUs only.
    """
    if name == "default":
        yield F.scaled_dot_product_attention
    elif name == FLASH3:
        yield _flash3()
    elif name in ON_GPUS and device.type != "cuda":
        raise NotHere(f"PyTorch has the kernel {name} on GPUs only")
    else:
        with sdpa_kernel(BACKENDS[name]):
            yield F.scaled_dot_product_attention


def _flash3() -> Attend:
    if importlib.util.find_spec(FLASH3_PACKAGE) is None:
        raise NotHere(f"FlashAttention 3 ({FLASH3_PACKAGE}) is not installed")
    attention = importlib.import_module(FLASH3_PACKAGE).flash_attn_func

    def attend(q_BNLK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor) -> Tensor:
        out = attention(*(one.transpose(1, 2) for one in (q_BNLK, k_BNSK, v_BNSK)))
        first: Tensor = out[0] if isinstance(out, tuple) else out
        return first.transpose(1, 2)

    return attend


def use(model: CosmosModel, attend: Attend) -> None:
    """Let all attention of the blocks be computed by a function."""
    for module in model.net.blocks.modules():
        if isinstance(module, Attention):
            module.attend = attend
