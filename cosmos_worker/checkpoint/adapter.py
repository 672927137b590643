"""LoRA corrections alone, in the form of PEFT: ``adapter_model.safetensors`` and ``adapter_config.json``.

Layers have the names of the reference's network, ``net.blocks.block0.blocks.0.block.attn.to_q.0``, or those of
diffusers, ``transformer_blocks.0.attn1.to_q``. What was trained besides the corrections, which is the uncertainty
head, is saved whole, as PEFT saves ``modules_to_save``.

Source: peft 0.20, utils/save_and_load.py and tuners/lora.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.checkpoint.adapter_config import (
    alpha_of,
    describe_adapter,
    read_adapter_config,
)
from cosmos_worker.checkpoint.diffusers_folder import BLOCK, diffusers_names
from cosmos_worker.checkpoint.lora_files import PEFT, PEFT_PREFIX, corrected, plain_names
from cosmos_worker.checkpoint.safetensors_files import (
    LazyTensors,
    Limits,
    find_tensors,
    write_shards,
)
from cosmos_worker.data.weight_forms import ADAPTER_CONFIG_FILE, ADAPTER_FILE, SUFFIX
from cosmos_worker.errors import CheckpointError
from cosmos_worker.layout import write_json

LOGVAR_PREFIX = "logvar."
PARTS = (".lora_A", ".lora_B")
OWN_BLOCK = re.compile(r"^net\.blocks\.block\d+\.")
ONE_FILE = 1 << 62
"""PEFT reads no shards."""


@dataclass(frozen=True)
class Adapter:
    """Corrections of some layers."""

    tensors: Mapping[str, Tensor]
    """``<layer>.lora_A`` (rank, in), ``<layer>.lora_B`` (out, rank), and other tensors that replace those of the
    network; layers and tensors under the reference's names."""
    alpha: float
    """The network gets alpha / rank * B A."""
    base: str | None = None
    """The model that it belongs to, for people and for PEFT; None = not known."""

    @property
    def layers(self) -> list[str]:
        """Names of the corrected layers."""
        return [n.removesuffix(PARTS[0]) for n in self.tensors if n.endswith(PARTS[0])]

    @property
    def rank(self) -> int:
        """That of the corrections, which have one rank."""
        return len(self.tensors[f"{self.layers[0]}{PARTS[0]}"])

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / self.rank

    @property
    def replaced(self) -> list[str]:
        """Names of the tensors that are no corrections."""
        return [name for name in self.tensors if not name.endswith(PARTS)]


# --- writing ---------------------------------------------------------------------------------


def write_adapter(folder: Path, adapter: Adapter, dtype: torch.dtype | None = None) -> None:
    """Write both files.

    Args:
        folder: exists.
        adapter: with names of either kind.
        dtype: type of the tensors; None = as they are.

    Raises:
        OSError: disk full or another failed write.
    """
    names = {_peft_name(name): name for name in adapter.tensors}
    stem = ADAPTER_FILE.removesuffix(SUFFIX)
    write_shards(folder, stem, adapter.tensors, names, Limits(dtype, ONE_FILE))
    targets = dict.fromkeys(_within_block(layer) for layer in adapter.layers)
    saved = {name.partition(".")[0] for name in adapter.replaced}
    config = describe_adapter(
        adapter.rank, adapter.alpha, adapter.base, list(targets), sorted(saved)
    )
    write_json(folder / ADAPTER_CONFIG_FILE, config)


def _peft_name(name: str) -> str:
    return f"{PEFT_PREFIX}{name}" + (".weight" if name.endswith(PARTS) else "")


def _within_block(layer: str) -> str:
    """Name of a layer without its block, by which PEFT finds it in every block."""
    return BLOCK.sub("", OWN_BLOCK.sub("", layer))


def with_diffusers_names(adapter: Adapter, where: Path) -> Adapter:
    """The same corrections under diffusers' names; without the uncertainty head, which diffusers does not have.

    Raises:
        CheckpointError: a layer that diffusers does not have.
    """
    blocks = [
        int(n) for layer in adapter.layers for n in re.findall(r"blocks\.block(\d+)\.", layer)
    ]
    known = diffusers_names(max(blocks, default=-1) + 1)
    tensors = {}
    for layer in adapter.layers:
        weight = known.get(f"{layer}.weight")
        if weight is None:
            raise CheckpointError(
                f"{where}: corrects {layer}, which diffusers does not have; use --format safetensors"
            )
        for part in PARTS:
            tensors[weight.removesuffix(".weight") + part] = adapter.tensors[layer + part]
    return replace(adapter, tensors=tensors)


# --- reading ---------------------------------------------------------------------------------


def read_adapter(folder: Path) -> Adapter:
    """Both files of PEFT; tensors are mapped when asked for.

    Raises:
        CheckpointError: a missing or damaged file, or corrections of a kind that is not known here.
    """
    file = folder / ADAPTER_FILE
    config = read_adapter_config(folder / ADAPTER_CONFIG_FILE)
    places = find_tensors(file)
    names = _own_names(places)
    adapter = Adapter(
        LazyTensors({new: places[old] for old, new in names.items()}),
        alpha_of(config, folder / ADAPTER_CONFIG_FILE),
        config.get("base_model_name_or_path"),
    )
    _check_whole(adapter, int(config["r"]), file)
    return adapter


def _own_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a file of PEFT → ours: ``<layer>.lora_A``, or that of a whole tensor."""
    plain = plain_names(names)
    blocks = [int(match[1]) for name in plain.values() if (match := BLOCK.match(name))]
    ours = {theirs: own for own, theirs in diffusers_names(max(blocks, default=-1) + 1).items()}
    found = {}
    for name, short in plain.items():
        match = PEFT.match(short)
        weight = f"{match['layer']}.weight" if match else short
        weight = ours.get(weight, weight)
        if not weight.startswith(("net.", LOGVAR_PREFIX)):
            weight = f"net.{weight}"
        part = f".lora_{match['part']}" if match else ""
        found[name] = weight.removesuffix(".weight") + part if match else weight
    return found


def _check_whole(adapter: Adapter, rank: int, file: Path) -> None:
    parts = {name for name in adapter.tensors if name.endswith(PARTS)}
    layers = {name.rpartition(".")[0] for name in parts}
    if not layers:
        raise CheckpointError(f"{file}: holds no lora_A and lora_B; save the adapter again")
    half = sorted({f"{layer}{part}" for layer in layers for part in PARTS} - parts)
    if half:
        raise CheckpointError(f"{file}: lacks {half[0]}; save the adapter again")
    for layer in sorted(layers):
        A, B = (tuple(adapter.tensors[layer + part].shape) for part in PARTS)
        if len(A) != 2 or len(B) != 2 or A[0] != rank or B[1] != rank:
            raise CheckpointError(
                f"{file}: the correction of {layer} has shapes A {A}, B {B}; expected A ({rank}, in), B (out, {rank}) "
                f"as r in {ADAPTER_CONFIG_FILE} says"
            )


# --- merging ---------------------------------------------------------------------------------


def merge_adapter(
    state: Mapping[str, Tensor], adapter: Adapter, where: Path
) -> Mapping[str, Tensor]:
    """The network's tensors with the corrections added when asked for, in float32.

    Args:
        state: of the network, under our names.
        adapter: of :func:`read_adapter`.
        where: its folder, for messages.

    Raises:
        CheckpointError: it corrects or replaces what the network does not have, or in another shape.
    """
    wanted = [f"{layer}.weight" for layer in adapter.layers]
    strange = [n for n in wanted if n not in state]
    strange += [n for n in adapter.replaced if n not in state and not n.startswith(LOGVAR_PREFIX)]
    if strange:
        raise CheckpointError(
            f"{where / ADAPTER_FILE}: is of another network: {len(strange)} of its weights are not there, such as "
            f"{strange[0]}; put it beside the weights that it was trained from ({adapter.base or 'not named in it'})"
        )
    for layer in adapter.layers:
        A, B = (adapter.tensors[layer + part] for part in PARTS)
        shape, got = tuple(state[f"{layer}.weight"].shape), (len(B), A.shape[1])
        if shape != got:
            raise CheckpointError(
                f"{where / ADAPTER_FILE}: corrects {layer}.weight as {got}, which is {shape}; put it beside the "
                f"weights that it was trained from ({adapter.base or 'not named in it'})"
            )
    return _Corrected(state, adapter)


class _Corrected(Mapping[str, Tensor]):
    """The tensors of a network with an adapter's corrections, and with what it replaces."""

    def __init__(self, state: Mapping[str, Tensor], adapter: Adapter) -> None:
        self._state, self._tensors, self._scale = state, adapter.tensors, adapter.scale
        self._weights = {f"{layer}.weight" for layer in adapter.layers}
        self._replaced = set(adapter.replaced)
        self._names = list(dict.fromkeys([*state, *adapter.replaced]))

    def __getitem__(self, name: str) -> Tensor:
        if name in self._replaced:
            return self._tensors[name]
        weight = self._state[name]
        if name not in self._weights:
            return weight
        A, B = (self._tensors[name.removesuffix(".weight") + part] for part in PARTS)
        return corrected(weight, A, B, self._scale)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
