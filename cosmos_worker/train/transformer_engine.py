"""Transformer Engine in place of torch: its attention, and its products in float8."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.layers import Attention
from cosmos_worker.runtime.imports import import_for
from cosmos_worker.runtime.machine import lack_of_engine_float8
from cosmos_worker.train.float8 import named_products

INSTALL = "use an image that has transformer-engine[pytorch]"


def _import_engine(option: str, otherwise: str, device: torch.device) -> ModuleType:
    """The library's part for PyTorch.

    Raises:
        ConfigError: there is no CUDA, or the library cannot be imported.
    """
    if device.type != "cuda":
        raise ConfigError(f"{option} needs CUDA, this run is on {device.type}; use {otherwise}")
    return import_for(option, "transformer_engine.pytorch", f"{INSTALL}, or {otherwise}")


# --- attention -------------------------------------------------------------------------------


def use_engine_attention(model: CosmosModel, device: torch.device) -> None:
    """Attention by Transformer Engine's kernels.

    Raises:
        ConfigError: there is no CUDA, or the library cannot be imported.
    """
    engine = _import_engine("acceleration.attention: 'transformer_engine'", "'torch'", device)
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
        q_BNLK, k_BSNK, v_BSNK = (
            one.transpose(1, 2).contiguous() for one in (q_BNLK, k_BNSK, v_BNSK)
        )
        out_BLD = kernel(q_BNLK, k_BSNK, v_BSNK)
        return out_BLD.unflatten(-1, q_BNLK.shape[-2:]).transpose(1, 2)

    return attend


# --- float8 ----------------------------------------------------------------------------------


def use_engine_float8(model: CosmosModel, device: torch.device) -> None:
    """Products of the blocks' attention and MLP layers by Transformer Engine in float8, weights as they are.

    Scales are those of the tensors at hand (current scaling), so nothing has to be saved to continue a run.

    Raises:
        ConfigError: there is no CUDA, the library cannot be imported or is too old, or the GPU is too old.
    """
    option, otherwise = "acceleration.linear: 'transformer_engine_float8'", "'plain', or 'float8'"
    engine = _import_engine(option, otherwise, device)
    version = import_for(option, "transformer_engine", INSTALL).__version__
    lack = lack_of_engine_float8(version, engine)
    if lack is not None:
        raise ConfigError(f"{option} cannot be used here: {lack}; use {otherwise}")
    recipes = import_for(option, "transformer_engine.common.recipe", INSTALL)
    replace_products(model.net.blocks, engine, recipes.Float8CurrentScaling())


def replace_products(blocks: nn.Module, engine: ModuleType, recipe: object) -> None:
    """Put the library's layers in the place of torch's, with the same weights under the same names.

    Args:
        blocks: of the network.
        engine: the library's part for PyTorch.
        recipe: says how values are scaled; one without a state.
    """
    kind = _float8_linear(engine, recipe)
    for name, linear in named_products(blocks).items():
        product = kind(
            linear.in_features,
            linear.out_features,
            bias=False,
            params_dtype=linear.weight.dtype,
            device="meta",
        )
        product.weight = linear.weight
        blocks.set_submodule(name, product)


def _float8_linear(engine: ModuleType, recipe: object) -> type[nn.Module]:
    """The library's layer, which is in float8 wherever it is called, in a recomputed block too."""

    class Float8Linear(engine.Linear):  # type: ignore[name-defined]  # a base known at run time
        # its state is empty with such a recipe, and weight files have no place for one
        get_extra_state = nn.Module.get_extra_state
        set_extra_state = nn.Module.set_extra_state

        def forward(self, x_BLD: Tensor) -> Tensor:
            with engine.autocast(enabled=True, recipe=recipe):
                out: Tensor = super().forward(x_BLD)
            return out

    return Float8Linear
