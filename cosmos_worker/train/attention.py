"""The kernel of attention in a training: PyTorch's own order, cuDNN's first, FlashAttention 3, Transformer Engine.

None of the choices for GPUs has been run on one by us; `python -m benchmarks.gpu` measures them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import AttentionKernel
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.layers import Attend, Attention
from cosmos_worker.runtime.imports import import_for
from cosmos_worker.train.transformer_engine import use_engine_attention

HOPPER = 9
"""Major compute capability of the GPUs for which FlashAttention 3 and cuDNN's kernel were written first."""
FLASH3_PACKAGE = "flash_attn_interface"
CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""PyTorch has cuDNN's kernel behind flash, so that it takes it only where flash cannot be used."""


def choose_attention(experiment: Experiment, device: torch.device) -> AttentionKernel:
    """The kernel in place of ``auto``: on Hopper FlashAttention 3 where it is installed, else cuDNN's first."""
    asked = experiment.acceleration.attention
    if asked != "auto":
        return asked
    if device.type != "cuda" or experiment.diffusion.compute_dtype == "float32":
        return "torch"
    if torch.cuda.get_device_capability(device)[0] != HOPPER:
        return "torch"
    return "flash_attention_3" if importlib.util.find_spec(FLASH3_PACKAGE) else "cudnn"


def use_attention(model: CosmosModel, kernel: AttentionKernel, device: torch.device) -> None:
    """Let all attention of the blocks be computed by a kernel.

    Args:
        model: the network.
        kernel: of :func:`choose_attention`; auto = PyTorch's own order.
        device: where the network runs.

    Raises:
        ConfigError: the kernel needs a library or a GPU that is not there.
    """
    if kernel == "transformer_engine":
        use_engine_attention(model, device)
    elif kernel == "cudnn":
        _require_gpu(kernel, device)
        _replace(model, attend_by_cudnn_first)
    elif kernel == "flash_attention_3":
        _require_gpu(kernel, device, HOPPER)
        option = f"acceleration.attention: {kernel!r}"
        module = import_for(option, FLASH3_PACKAGE, "use an image that has it, or 'auto'")
        _replace(model, attend_by_flash3(module.flash_attn_func))


def attend_by_cudnn_first(q_BNLK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor) -> Tensor:
    """PyTorch's attention with cuDNN's kernel where it can be used, then the others in their order."""
    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return F.scaled_dot_product_attention(q_BNLK, k_BNSK, v_BNSK)


def attend_by_flash3(function: Callable[..., Any]) -> Attend:
    """A function of FlashAttention 3, on (batch, tokens, heads, channels), in the form of :attr:`Attention.attend`."""

    def attend(q_BNLK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor) -> Tensor:
        found = function(*(one.transpose(1, 2) for one in (q_BNLK, k_BNSK, v_BNSK)))
        # some versions also return the sums of the softmax
        out_BLNK: Tensor = found[0] if isinstance(found, tuple) else found
        return out_BLNK.transpose(1, 2)

    return attend


def _require_gpu(kernel: str, device: torch.device, major: int | None = None) -> None:
    option = f"acceleration.attention: {kernel!r}"
    if device.type != "cuda":
        raise ConfigError(f"{option} needs CUDA, this run is on {device.type}; use 'auto'")
    found = torch.cuda.get_device_capability(device)
    if major is not None and found[0] != major:
        raise ConfigError(
            f"{option} needs compute capability {major}.x; {torch.cuda.get_device_name(device)} has "
            f"{found[0]}.{found[1]}; use 'auto'"
        )


def _replace(model: CosmosModel, attend: Attend) -> None:
    for module in model.net.blocks.modules():
        if isinstance(module, Attention):
            module.attend = attend
