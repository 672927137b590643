"""Low-rank adaptation (Hu et al. 2021): frozen linear layers that learn a small correction, W + scale B A."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosmos_worker.config.training import LoraConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.dtensor import copy_own_shard

LAYERS = {
    "q": r"\.attn\.to_q\.0$",
    "k": r"\.attn\.to_k\.0$",
    "v": r"\.attn\.to_v\.0$",
    "out": r"\.attn\.to_out\.0$",
    "mlp": r"\.block\.layer[12]$",
}
"""Patterns of the names of the linear layers that each of ``lora.targets`` adapts, in both attentions and the MLP."""


class LoraLinear(nn.Linear):
    """A frozen linear layer without bias, with its correction; ``weight`` keeps its name.

    Args:
        weight_OI: of the layer, (out, in).
        rank: of the correction.
        scale: factor of the correction.
    """

    def __init__(self, weight_OI: Tensor, rank: int, scale: float) -> None:
        out_channels, in_channels = weight_OI.shape
        super().__init__(in_channels, out_channels, bias=False, device="meta")
        self.weight = nn.Parameter(weight_OI, requires_grad=False)
        self.scale = scale
        self.lora_A = nn.Parameter(weight_OI.new_empty(rank, in_channels, dtype=torch.float32))
        self.lora_B = nn.Parameter(weight_OI.new_empty(out_channels, rank, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        correction = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return F.linear(x, self.weight) + self.scale * correction


def add_lora(model: CosmosModel, config: LoraConfig, dtype: torch.dtype) -> None:
    """Freeze the network and give the chosen layers a LoRA correction, whose parameters have no values yet.

    Args:
        model: on the meta device.
        config: layers, rank and scale.
        dtype: of the frozen weights of the blocks: that of matrix products.

    Raises:
        ConfigError: no layer is chosen.
    """
    model.net.requires_grad_(False)
    model.net.blocks.to(dtype)
    patterns = [LAYERS[target] for target in config.targets]
    chosen = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(re.search(p, name) for p in patterns)
    ]
    if not chosen:
        raise ConfigError(f"lora.targets: {list(config.targets)} names no layer of this network")
    for name in chosen:
        parent, _, own = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        layer = LoraLinear(linear.weight.detach(), config.rank, config.alpha / config.rank)
        setattr(model.get_submodule(parent), own, layer)


def init_lora(model: nn.Module, generator_of: Callable[[str], torch.Generator]) -> None:
    """Set A uniform as in a fresh linear layer, and B to zero, so that the correction is zero and can learn.

    The values are the same for any sharding.

    Args:
        model: with corrections without values; one without corrections stays as it is.
        generator_of: returns the random generator of a layer, by its name.
    """
    for name, layer in _lora_layers(model):
        bound = 1 / math.sqrt(layer.in_features)
        whole = torch.empty(layer.lora_A.shape)
        whole.uniform_(-bound, bound, generator=generator_of(name))
        with torch.no_grad():
            copy_own_shard(layer.lora_A, whole)
        nn.init.zeros_(layer.lora_B)


def lora_scales(model: nn.Module) -> dict[str, float]:
    """The factor of each layer's correction, by its name."""
    return {name: layer.scale for name, layer in _lora_layers(model)}


def merge_lora(state: Mapping[str, Tensor], scales: Mapping[str, float]) -> Mapping[str, Tensor]:
    """Whole weights with their corrections added, under the names of a network without any; empty gives empty.

    Args:
        state: whole weights by name; not changed.
        scales: of :func:`lora_scales`; empty gives the state itself, whose tensors are not read.
    """
    if not scales:
        return state
    merged = dict(state)
    for name, scale in scales.items():
        if f"{name}.weight" in merged:
            A, B = merged.pop(f"{name}.lora_A"), merged.pop(f"{name}.lora_B")
            merged[f"{name}.weight"] = merged[f"{name}.weight"].float() + scale * (B @ A)
    return merged


def corrections_of(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights that a LoRA training changes: ``<layer>.lora_{A,B}``, and the whole uncertainty head if it learns.

    Args:
        state: whole weights by name; empty gives empty.
        model: the network of these weights.
    """
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    parts = {f"{name}.{part}" for name, _ in _lora_layers(model) for part in ("lora_A", "lora_B")}
    heads = tuple({f"{name.partition('.')[0]}." for name in learning - parts})
    return {name: value for name, value in state.items() if name in parts or name.startswith(heads)}


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module
