"""Stands in for Transformer Engine where there is no CUDA: its signatures (releases 2.16 to 2.18), float8 in torch.

What a layer checks, rounds, keeps for the backward pass and adds to a state dict is as there, on GPUs that multiply
float8 in one layout only (Ada, Hopper). Products of the rounded numbers are in float32.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VERSION = "2.18.0"


@dataclass
class Float8CurrentScaling:
    """Recipe with the scale of each tensor as it is at the product."""

    fp8_dpa: bool = False
    fp8_mha: bool = False


class autocast:  # noqa: N801 - the library's name
    """Context with products in float8; it cannot be entered twice at once."""

    current: Float8CurrentScaling | None = None

    def __init__(
        self,
        enabled: bool = True,
        calibrating: bool = False,
        recipe: Float8CurrentScaling | None = None,
        amax_reduction_group: object = None,
        _graph: bool = False,
    ) -> None:
        assert enabled
        assert isinstance(recipe, Float8CurrentScaling)
        self._recipe, self._before = recipe, autocast.current

    def __enter__(self) -> autocast:
        autocast.current = self._recipe
        return self

    def __exit__(self, *error: object) -> None:
        autocast.current = self._before


def rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The tensor in float8, and its scale; the largest number becomes the largest of the type."""
    amax = x.detach().abs().amax().float()
    scale = torch.where(amax > 0, amax / torch.finfo(dtype).max, torch.ones_like(amax))
    return (x.float() / scale).to(dtype), scale


class _Product(torch.autograd.Function):
    """x W^T of rounded numbers; the transposed copy of x is kept, and both of W."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
        x8, x_scale = rounded(x.flatten(0, -2), torch.float8_e4m3fn)
        w8, w_scale = rounded(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(x8.t().contiguous(), x_scale, w8, w8.t().contiguous(), w_scale)
        ctx.dtype, ctx.shape = dtype, x.shape
        y = x8.float() @ w8.float().t() * (x_scale * w_scale)
        return y.to(dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x8_t, x_scale, w8, _, w_scale = ctx.saved_tensors
        dy8, dy_scale = rounded(dy.reshape(-1, dy.shape[-1]), torch.float8_e5m2)
        dx = dy8.float() @ w8.float() * (dy_scale * w_scale)
        dw = dy8.float().t() @ x8_t.float().t() * (dy_scale * x_scale)
        return dw.to(ctx.dtype), dx.to(ctx.dtype).view(ctx.shape), None


class Linear(nn.Module):
    """The library's layer: the parameters of its constructor and of its call, its checks, its extra state."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        fuse_wgrad_accumulation: bool = False,
        tp_group: object = None,
        tp_size: int = 1,
        get_rng_state_tracker: Callable | None = None,
        rng_tracker_name: str | None = None,
        init_method: Callable | None = None,
        bias: bool = True,
        return_bias: bool = False,
        params_dtype: torch.dtype | None = None,
        parallel_mode: str | None = None,
        parameters_split: object = None,
        device: torch.device | str = "cuda",
        ub_overlap_ag: bool = False,
        ub_overlap_rs: bool = False,
        ub_overlap_rs_dgrad: bool = False,
        ub_bulk_dgrad: bool = False,
        ub_bulk_wgrad: bool = False,
        ub_name: str | None = None,
        delay_wgrad_compute: bool = False,
        symmetric_ar_type: str | None = None,
        save_original_input: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.name, self.param_init_meta, self.bias = name, {}, torch.empty(0)
        self.in_features, self.out_features, self.use_bias = in_features, out_features, bias
        assert not bias, "the network has none"
        empty = torch.empty(out_features, in_features, device=device, dtype=params_dtype)
        self.register_parameter("weight", nn.Parameter(empty), init_fn=init_method)
        if device != "meta":
            nn.init.normal_(self.weight, std=0.023)

    def register_parameter(self, name: str, param: nn.Parameter | None, **kwargs: object) -> None:
        super().register_parameter(name, param)
        if hasattr(self, "param_init_meta") and name not in self.param_init_meta:
            self.param_init_meta[name] = kwargs

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_extra_state(self, state: Tensor | None) -> None:
        assert state is None or state.numel() == 0

    def forward(
        self,
        inp: Tensor,
        is_first_microbatch: bool | None = None,
        fp8_output: bool | None = False,
        fp8_grad: bool | None = False,
    ) -> Tensor:
        if autocast.current is None:
            raise AssertionError("called outside of autocast, where it would not be in float8")
        kind = inp.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        elif inp.dtype != self.weight.dtype:
            raise TypeError(
                "Data types for parameters must match when outside of autocasted region."
            )
        else:
            dtype = inp.dtype
        for tensor in (inp, self.weight):
            if math.prod(tensor.shape[:-1]) % 8 or tensor.shape[-1] % 16:
                raise ValueError(f"FP8 execution does not admit {list(tensor.shape)}")
        assert inp.numel() // inp.shape[-1] % 16 == 0, "the product of the backward pass fails"
        return _Product.apply(self.weight, inp, dtype)


class DotProductAttention(nn.Module):
    """The library's attention: the parameters of its constructor, and those of its call that are used."""

    def __init__(
        self,
        num_attention_heads: int,
        kv_channels: int | tuple[int, int],
        num_gqa_groups: int | None = None,
        attention_dropout: float = 0.0,
        qkv_format: str = "sbhd",
        attn_mask_type: str = "causal",
        window_size: tuple[int, int] | None = None,
        bottom_right_diagonal: bool | None = None,
        sequence_parallel: bool = False,
        tp_size: int = 1,
        get_rng_state_tracker: Callable | None = None,
        tp_group: object = None,
        layer_number: int | None = None,
        attention_type: str = "self",
        cp_group: object = None,
        cp_global_ranks: object = None,
        cp_stream: object = None,
        cp_comm_type: str = "p2p",
        softmax_scale: float | None = None,
        softmax_type: str = "vanilla",
        return_max_logit: bool | None = False,
        name: str | None = None,
    ) -> None:
        super().__init__()
        assert (qkv_format, attn_mask_type, attention_dropout) == ("bshd", "no_mask", 0.0)
        self.heads, self.channels = num_attention_heads, kv_channels

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def forward(
        self,
        query_layer: Tensor,
        key_layer: Tensor,
        value_layer: Tensor,
        attention_mask: Tensor | None = None,
        qkv_format: str | None = None,
    ) -> Tensor:
        """(B, L, N, K), and (B, S, N, K) twice → (B, L, N K)."""
        given = (query_layer, key_layer, value_layer)
        assert len({one.dtype for one in given}) == 1
        assert all(one.shape[-2:] == (self.heads, self.channels) for one in given)
        turned = (one.transpose(1, 2) for one in given)
        return F.scaled_dot_product_attention(*turned).transpose(1, 2).flatten(2)


def engine(lack: str = "") -> ModuleType:
    """``transformer_engine.pytorch``; ``lack`` is why the GPU has no float8."""
    module = ModuleType("transformer_engine.pytorch")

    def is_fp8_available(return_reason: bool = False) -> bool | tuple[bool, str]:
        return (not lack, lack) if return_reason else not lack

    module.Linear, module.DotProductAttention = Linear, DotProductAttention
    module.autocast, module.is_fp8_available = autocast, is_fp8_available
    return module


def install(
    set_module: Callable[[str, ModuleType], None] = sys.modules.__setitem__,
    version: str = VERSION,
    lack: str = "",
) -> None:
    """Make the stand-in the library that an import finds."""
    package = ModuleType("transformer_engine")
    package.__version__, package.__path__ = version, []
    recipes = ModuleType("transformer_engine.common.recipe")
    recipes.Float8CurrentScaling = Float8CurrentScaling
    common = ModuleType("transformer_engine.common")
    common.__path__ = []
    package.pytorch = engine(lack)
    for module in (package, package.pytorch, common, recipes):
        set_module(module.__name__, module)


def install_for_test(monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    """Install the stand-in until the test ends."""
    install(lambda name, module: monkeypatch.setitem(sys.modules, name, module), **options)
