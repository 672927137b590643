"""LoRA corrections alone: PEFT's ``adapter_model.*`` with ``adapter_config.json``, and diffusers' one file.

Layers have the names of the reference's network, ``net.blocks.block0.blocks.0.block.attn.to_q.0``, or those of
diffusers, ``transformer_blocks.0.attn1.to_q``. What was trained besides the corrections, which is the uncertainty
head, is saved whole, as PEFT saves ``modules_to_save``. They are merged as PEFT and diffusers merge them.

Source: peft 0.21, utils/save_and_load.py and tuners/lora; diffusers 0.38, loaders/peft.py and utils/peft_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import write_json
from cosmos_worker.weights.adapter_config import (
    LoraRules,
    describe_adapter,
    read_adapter_config,
    read_diffusers_metadata,
)
from cosmos_worker.weights.diffusers import (
    BLOCK,
    diffusers_names,
)
from cosmos_worker.weights.files import adapter_file
from cosmos_worker.weights.forms import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    PEFT_FILES,
    SUFFIX,
)
from cosmos_worker.weights.lora import (
    PEFT_PREFIX,
    Residual,
    merge_layer,
)
from cosmos_worker.weights.lora_names import (
    Part,
    own_layers,
    refuse_other_kinds,
    split_name,
)
from cosmos_worker.weights.safetensors import (
    Limits,
    write_shards,
)
from cosmos_worker.weights.tensor_files import (
    open_tensors,
    read_metadata,
)
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
    Renamed,
    describe,
)

LOGVAR_PREFIX = "logvar."
PARTS = (".lora_A", ".lora_B")
MAGNITUDE = ".lora_magnitude"
OWN_BLOCK = re.compile(r"^net\.blocks\.block\d+\.")
ONE_FILE = 1 << 62
"""PEFT reads no shards."""


@dataclass(frozen=True)
class Adapter:
    """Corrections of some layers."""

    tensors: Mapping[str, Tensor]
    """``<layer>.lora_A`` (rank, in), ``<layer>.lora_B`` (out, rank), ``<layer>.lora_magnitude`` (out) of DoRA, and
    other tensors that replace those of the network; layers and tensors under the reference's names."""
    alpha: float
    """The network gets alpha / rank * B A."""
    base: str | None = None
    """The model that it belongs to, for people and for PEFT; None = not known."""
    scales: Mapping[str, float] = field(default_factory=dict)
    """Factor of B A by layer, where it is another one."""
    residual: Residual | None = None
    """The initialisation, if it took a part out of the base."""

    @property
    def layers(self) -> list[str]:
        """Names of the corrected layers."""
        return [n.removesuffix(PARTS[0]) for n in self.tensors if n.endswith(PARTS[0])]

    @property
    def rank(self) -> int:
        """That of the first correction, and of all if :attr:`is_plain`."""
        return describe(self.tensors, f"{self.layers[0]}{PARTS[0]}").shape[0]

    @property
    def scale(self) -> float:
        """Factor of B A where no other is said."""
        return self.alpha / self.rank

    def scale_of(self, layer: str) -> float:
        """Factor of B A of a layer."""
        return self.scales.get(layer, self.scale)

    @property
    def replaced(self) -> list[str]:
        """Names of the tensors that are no corrections."""
        return [name for name in self.tensors if not name.endswith((*PARTS, MAGNITUDE))]

    @property
    def is_plain(self) -> bool:
        """Whether rank and alpha say all: one rank, one scale, no magnitudes, and a base that is as it was."""
        ranks = {describe(self.tensors, f"{layer}{PARTS[0]}").shape[0] for layer in self.layers}
        scales = {self.scale_of(layer) for layer in self.layers}
        has_magnitudes = any(name.endswith(MAGNITUDE) for name in self.tensors)
        return (
            len(ranks) == 1
            and scales == {self.scale}
            and not has_magnitudes
            and self.residual is None
        )


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
    """The adapter of a folder; tensors are mapped when asked for.

    Raises:
        CheckpointError: a missing or damaged file, or corrections of a kind that is not known here.
    """
    file = adapter_file(folder)
    if file is None:
        raise CheckpointError(f"{folder}: holds no LoRA adapter ({ADAPTER_FILE})")
    state = open_tensors(file)
    if file.name in PEFT_FILES:
        rules: LoraRules | None = read_adapter_config(folder / ADAPTER_CONFIG_FILE)
    else:
        rules = read_diffusers_metadata(read_metadata(file), file)
    return _build(state, rules, file)


def _build(state: Mapping[str, Tensor], rules: LoraRules | None, file: Path) -> Adapter:
    """The adapter of a file, under our names."""
    refuse_other_kinds(state, file)
    layers, whole = _sort(state)
    _check_whole(layers, file)
    own = own_layers([*layers, *whole], file)
    names: dict[str, str] = {}
    scales: dict[str, float] = {}
    for layer, parts in layers.items():
        new = own[layer]
        if new in scales:
            raise CheckpointError(f"{file}: two LoRA corrections of {new}; keep one adapter")
        names |= {f"{new}.lora_{part}": parts[part] for part in ("A", "B")}
        if "magnitude" in parts:
            names[f"{new}{MAGNITUDE}"] = parts["magnitude"]
        scales[new] = _scale(state, layer, parts, rules, file)
    names |= {own[name]: name for name in whole}
    first = next(iter(scales))
    rank = describe(state, names[f"{first}.lora_A"]).shape[0]
    return Adapter(
        Renamed(state, names),
        alpha=scales[first] * rank,
        base=None if rules is None else rules.base,
        scales=scales if len(set(scales.values())) > 1 else {},
        residual=None if rules is None else rules.residual,
    )


def _sort(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[Part, str]], list[str]]:
    """Names of the parts of each layer's correction, and of all other tensors."""
    layers: dict[str, dict[Part, str]] = {}
    whole = []
    for name in state:
        split = split_name(name)
        if split is None:
            whole.append(name)
        else:
            layers.setdefault(split[0], {})[split[1]] = name
    return layers, whole


def _check_whole(layers: Mapping[str, Mapping[Part, str]], file: Path) -> None:
    if not layers:
        raise CheckpointError(f"{file}: holds no lora_A and lora_B; save the adapter again")
    for layer, parts in layers.items():
        absent = next((part for part in ("A", "B") if part not in parts), None)
        if absent is not None:
            raise CheckpointError(f"{file}: lacks {layer}.lora_{absent}; save the adapter again")


def _scale(
    state: Mapping[str, Tensor],
    layer: str,
    parts: Mapping[Part, str],
    rules: LoraRules | None,
    file: Path,
) -> float:
    """Factor of B A of a layer, whose shapes are those that are said of it.

    A file of diffusers or kohya that says nothing means 1, and alpha / rank where it has an alpha.
    """
    A, B = (describe(state, parts[part]).shape for part in ("A", "B"))
    module = layer.removeprefix(PEFT_PREFIX if file.name in PEFT_FILES else "transformer.")
    rank = A[0] if rules is None and A else 0
    if rules is not None:
        rank = rules.rank(module)
        if not rules.is_target(module):
            raise CheckpointError(
                f"{rules.where}: target_modules and exclude_modules do not name {module}, which {file.name} corrects; "
                "PEFT would leave this correction out: save the adapter again"
            )
    if len(A) != 2 or len(B) != 2 or A[0] != rank or B[1] != rank:
        said = "" if rules is None else f" as r in {Path(rules.where).name} says"
        raise CheckpointError(
            f"{file}: the correction of {layer} has shapes A {A}, B {B}; expected A ({rank}, in), B (out, {rank}){said}"
        )
    if rules is not None:
        if ("magnitude" in parts) != bool(rules.config.get("use_dora")):
            raise CheckpointError(
                f"{file}: {layer} {'has a' if 'magnitude' in parts else 'lacks its'} lora_magnitude_vector, and "
                f"{Path(rules.where).name} says use_dora={rules.config.get('use_dora')!r}; save the adapter again"
            )
        return rules.scale(module)
    return float(state[parts["alpha"]]) / rank if "alpha" in parts else 1.0


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
    file = adapter_file(where) or where / ADAPTER_FILE
    wanted = [f"{layer}.weight" for layer in adapter.layers]
    strange = [n for n in wanted if n not in state]
    strange += [n for n in adapter.replaced if n not in state and not n.startswith(LOGVAR_PREFIX)]
    if strange:
        raise CheckpointError(
            f"{file}: is of another network: {len(strange)} of its weights are not there, such as "
            f"{strange[0]}; put it beside the weights that it was trained from ({adapter.base or 'not named in it'})"
        )
    for layer in adapter.layers:
        A, B = (describe(adapter.tensors, layer + part).shape for part in PARTS)
        shape, got = describe(state, f"{layer}.weight").shape, (B[0], A[1])
        if shape != got:
            raise CheckpointError(
                f"{file}: corrects {layer}.weight as {got}, which is {shape}; put it beside the "
                f"weights that it was trained from ({adapter.base or 'not named in it'})"
            )
    return _Corrected(state, adapter)


class _Corrected(LazyMapping):
    """The tensors of a network with an adapter's corrections, and with what it replaces."""

    def __init__(self, state: Mapping[str, Tensor], adapter: Adapter) -> None:
        self._state, self._tensors, self._adapter = state, adapter.tensors, adapter
        self._scales = {f"{layer}.weight": adapter.scale_of(layer) for layer in adapter.layers}
        self._replaced = set(adapter.replaced)
        self._names = list(dict.fromkeys([*state, *adapter.replaced]))

    def __getitem__(self, name: str) -> Tensor:
        if name in self._replaced:
            return self._tensors[name]
        weight = self._state[name]
        if name not in self._scales:
            return weight
        layer = name.removesuffix(".weight")
        A, B = (self._tensors[layer + part] for part in PARTS)
        magnitude = self._tensors.get(layer + MAGNITUDE)
        return merge_layer(weight, A, B, self._scales[name], magnitude, self._adapter.residual)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        if name in self._replaced:
            return describe(self._tensors, name)
        shape, dtype = describe(self._state, name)
        is_corrected = name in self._scales and dtype.is_floating_point
        return Described(shape, torch.float32 if is_corrected else dtype)
