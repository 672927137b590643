"""Weights in 8-bit floating point, with scales or without, as float32.

Two schemes are certain: ComfyUI's ``<layer>.scale_weight`` and the ``<layer>.weight_scale`` of compressed-tensors,
ModelOpt and newer ComfyUI; both multiply, with one number or one for each row. Weights without scales are rounded
values as they are. Everything else is refused by name.

Source: ComfyUI, comfy/ops.py and comfy/quant_ops.py; compressed-tensors, quantization/lifecycle/forward.py.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import counted
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
    describe,
)

logger = logging.getLogger(__name__)

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = (".scale_weight", ".weight_scale")
ACTIVATION_SCALES = (".scale_input", ".input_scale")
"""Of activations, for products in 8 bits: not of the weights."""
MARKER = "scaled_fp8"
COMFY_FORMAT = ".comfy_quant"
COMFY_FORMATS = ("float8_e4m3fn", "float8_e5m2")
OTHER_SCHEME = re.compile(
    r"\.(?:weight_scale_\w+|weight_scale_inv|weight_zero_point|weight_packed|qweight|qzeros|scales|SCB|weight_format|"
    r"absmax|quant_map|nested_absmax|quant_state\..+|weight\.absmax|weight\.quant_map|weight\.quant_state\..+|"
    r"weight\.nested_absmax|weight\._scale|weight\.scale|weight_quantizer\..+|g_idx)$"
)
"""Tensors beside weights whose integers or 4-bit numbers mean something that only their own library knows."""


def dequantise(state: Mapping[str, Tensor], where: Path) -> Mapping[str, Tensor]:
    """The same tensors, those of 8-bit floating point with their scales as float32; without the scales.

    Args:
        state: under our names.
        where: the file, for messages.

    Raises:
        CheckpointError: another way to keep weights in few bits, or scales that do not fit.
    """
    other = next((name for name in state if OTHER_SCHEME.search(name)), None)
    if other is not None:
        raise CheckpointError(
            f"{where}: quantised weights ({other}), which only the library that wrote them can read; save the network "
            "in bfloat16 or float32"
        )
    stored = {name for name in state if describe(state, name).dtype in FLOAT8}
    scales = {
        f"{name.removesuffix(end)}.weight": name
        for end in SCALES
        for name in state
        if name.endswith(end)
    }
    helpers = {
        name for name in state
        if name.endswith((*SCALES, *ACTIVATION_SCALES, COMFY_FORMAT)) or name.rpartition(".")[2] == MARKER
    }  # fmt: skip
    stored -= helpers
    if not stored and not helpers:
        return state
    _check(state, stored, scales, where)
    logger.info(
        "%s: %s of 8-bit floating point, %d with a scale, converted to float32",
        where, counted(len(stored), "weight"), len(scales),
    )  # fmt: skip
    return _Dequantised(state, stored, scales, helpers)


def _check(
    state: Mapping[str, Tensor], stored: set[str], scales: Mapping[str, str], where: Path
) -> None:
    for name in state:
        if name.endswith(COMFY_FORMAT):
            _check_format(name, state[name], where)
    for weight, scale in scales.items():
        if weight not in state:
            raise CheckpointError(
                f"{where}: {scale} scales {weight}, which is not there; save it again"
            )
        shape, dtype = describe(state, scale)
        rows = describe(state, weight).shape[:1]
        if weight not in stored or not dtype.is_floating_point:
            raise CheckpointError(
                f"{where}: {scale} ({dtype}) scales {weight}, which is {describe(state, weight).dtype}; only weights "
                "of 8-bit floating point have scales that are known here: save the network in bfloat16 or float32"
            )
        if shape not in ((), (1,), rows, (*rows, 1)) or (
            shape == rows and rows != (1,) and scale.endswith(SCALES[0])
        ):
            raise CheckpointError(
                f"{where}: {scale} has shape {shape}; known are one number, and one for each row of {weight} "
                f"({(*rows, 1)}): save the network in bfloat16 or float32"
            )
    unscaled = sorted(stored - set(scales))
    mark = next((name for name in state if _says_scaled(name)), None)
    if unscaled and (scales or mark is not None):
        others = "others have one" if scales else f"{mark} says that they are scaled"
        raise CheckpointError(
            f"{where}: {counted(len(unscaled), 'weight')} of 8-bit floating point "
            f"{'has' if len(unscaled) == 1 else 'have'} no scale, such as {unscaled[0]}, and {others}; "
            "save the file again"
        )


def _says_scaled(name: str) -> bool:
    """True for tensors that exist only where weights are scaled: ComfyUI's mark, and scales of activations."""
    return name.rpartition(".")[2] == MARKER or name.endswith((*ACTIVATION_SCALES, COMFY_FORMAT))


def _check_format(name: str, content: Tensor, where: Path) -> None:
    """ComfyUI's note about one layer, JSON in bytes."""
    try:
        kind = json.loads(bytes(content.to(torch.uint8).tolist()))["format"]
    except (ValueError, KeyError, TypeError, RuntimeError):
        kind = "unknown"
    if kind not in COMFY_FORMATS:
        raise CheckpointError(
            f"{where}: {name} says format {kind!r}; known are {', '.join(COMFY_FORMATS)}: save the network in bfloat16 "
            "or float32"
        )


class _Dequantised(LazyMapping):
    """Tensors of which some are scaled when they are asked for."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        stored: set[str],
        scales: Mapping[str, str],
        helpers: set[str],
    ) -> None:
        self._state, self._stored, self._scales = state, stored, scales
        self._names = [name for name in state if name not in helpers]

    def __getitem__(self, name: str) -> Tensor:
        value = self._state[name]
        if name not in self._stored:
            return value
        value = value.float()
        if name not in self._scales:
            return value
        scale = self._state[self._scales[name]].float()
        if scale.numel() > 1:
            scale = scale.reshape(-1, *(1,) * (value.dim() - 1))
        return value * scale

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        shape, dtype = describe(self._state, name)
        return Described(shape, torch.float32 if name in self._stored else dtype)
