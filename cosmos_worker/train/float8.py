"""Products of the blocks in float8, by torchao."""

from __future__ import annotations

import torch
from torch import nn

from cosmos_worker.config.values import FLOAT8_MULTIPLE
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.layers import Attention, FeedForward
from cosmos_worker.runtime.imports import import_for

FLOAT8_CAPABILITY = (8, 9)
"""Compute capability of the first GPUs that multiply in float8 (Ada, Hopper)."""


def named_products(blocks: nn.Module) -> dict[str, nn.Linear]:
    """The large layers of the blocks, by name; not their modulations, nor what is outside them."""
    return {
        f"{name}.{inner}": linear
        for name, holder in blocks.named_modules()
        if isinstance(holder, Attention | FeedForward)
        for inner, linear in holder.named_modules()
        if isinstance(linear, nn.Linear)
    }


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
    products = named_products(model.net.blocks).values()
    chosen = {id(linear) for linear in products if _has_float8_sides(linear)}
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


def _has_float8_sides(linear: nn.Linear) -> bool:
    return not (linear.in_features % FLOAT8_MULTIPLE or linear.out_features % FLOAT8_MULTIPLE)
