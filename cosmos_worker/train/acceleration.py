"""Faster kernels where an experiment asks for them: float8 products by torchao, attention by Transformer Engine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cosmos_worker.errors import ConfigError
from cosmos_worker.memory_states import FLOAT8_MULTIPLE
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.layers import Attention, FeedForward
from cosmos_worker.options import AccelerationConfig
from cosmos_worker.train.optional import import_for

FLOAT8_CAPABILITY = (8, 9)
"""Compute capability of the first GPUs that multiply in float8 (Ada, Hopper)."""


def accelerate(model: CosmosModel, config: AccelerationConfig, device: torch.device) -> None:
    """Change how layers compute, in place; weights keep names and forms. Before weights are spread.

    Raises:
        ConfigError: a library or device that an option needs is not there.
    """
    if config.linear == "float8":
        use_float8(model, device)
    if config.attention == "transformer_engine":
        use_transformer_engine(model, device)


# --- float8 ----------------------------------------------------------------------------------


def use_float8(model: CosmosModel, device: torch.device) -> None:
    """Products of the blocks' attention and MLP layers in float8, weights as they are.

    Raises:
        ConfigError: torchao is not installed, the GPU is too old, or no layer has sides that float8 admits.
    """
    option = "acceleration.linear: 'float8'"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        raise ConfigError(
            f"{option} needs compute capability {'.'.join(map(str, FLOAT8_CAPABILITY))}; "
            f"{torch.cuda.get_device_name(device)} has {major}.{minor}; use 'plain'"
        )
    float8 = import_for(option, "torchao.float8", "pip install 'torchao>=0.17', or use 'plain'")
    chosen = {id(linear) for linear in _products(model) if _has_float8_sides(linear)}
    if not chosen:
        raise ConfigError(
            f"{option}: no layer of this network has sides that are multiples of {FLOAT8_MULTIPLE}; use 'plain'"
        )
    float8.convert_to_float8_training(
        model,
        module_filter_fn=lambda module, name: id(module) in chosen,
        # captions of any length are padded inside their products
        config=float8.Float8LinearConfig(emulate=device.type != "cuda", pad_inner_dim=True),
    )


def _products(model: CosmosModel) -> list[nn.Linear]:
    """The large layers of the blocks; not their modulations, nor what is outside them."""
    holders = (Attention, FeedForward)
    return [
        linear
        for holder in model.net.blocks.modules()
        if isinstance(holder, holders)
        for linear in holder.modules()
        if isinstance(linear, nn.Linear)
    ]


def _has_float8_sides(linear: nn.Linear) -> bool:
    return not (linear.in_features % FLOAT8_MULTIPLE or linear.out_features % FLOAT8_MULTIPLE)


# --- attention -------------------------------------------------------------------------------


def use_transformer_engine(model: CosmosModel, device: torch.device) -> None:
    """Attention by Transformer Engine's kernels.

    Raises:
        ConfigError: there is no CUDA, or the library cannot be imported.
    """
    option = "acceleration.attention: 'transformer_engine'"
    if device.type != "cuda":
        raise ConfigError(f"{option} needs CUDA, this run is on {device.type}; use 'torch'")
    engine = import_for(
        option,
        "transformer_engine.pytorch",
        "use an image that has transformer-engine[pytorch], or 'torch'",
    )
    for module in model.net.blocks.modules():
        if isinstance(module, Attention):
            kernel = engine.DotProductAttention(
                num_attention_heads=module.num_heads,
                kv_channels=model.net.config.head_dim,
                attention_dropout=0.0,
                qkv_format="bshd",
                attn_mask_type="no_mask",
            )
            module.attend = attend_by(kernel)


def attend_by(kernel: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A kernel on (batch, tokens, heads, channels) as what :class:`Attention` calls.

    As a function it is no part of the network, whose weight files it must not change.
    """

    def attend(q_BNLK: Tensor, k_BNSK: Tensor, v_BNSK: Tensor) -> Tensor:
        q_BLNK, k_BSNK, v_BSNK = (
            one.transpose(1, 2).contiguous() for one in (q_BNLK, k_BNSK, v_BNSK)
        )
        out_BLD = kernel(q_BLNK, k_BSNK, v_BSNK)
        return out_BLD.unflatten(-1, q_BLNK.shape[-2:]).transpose(1, 2)

    return attend
