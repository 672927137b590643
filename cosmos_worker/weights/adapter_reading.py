"""Read LoRA corrections: PEFT's ``adapter_model.*`` with its configuration, or the one file of diffusers or kohya."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.adapter import MAGNITUDE, Adapter
from cosmos_worker.weights.adapter_config import (
    LoraRules,
    read_adapter_config,
    read_diffusers_metadata,
)
from cosmos_worker.weights.files import adapter_file
from cosmos_worker.weights.forms import ADAPTER_CONFIG_FILE, ADAPTER_FILE, PEFT_FILES
from cosmos_worker.weights.lora import PEFT_PREFIX
from cosmos_worker.weights.lora_names import Part, own_layers, refuse_other_kinds, split_name
from cosmos_worker.weights.tensor_files import open_tensors, read_metadata
from cosmos_worker.weights.tensors import Renamed, describe


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
    layers, whole = _sort_parts(state)
    _check_halves(layers, file)
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


def _sort_parts(state: Mapping[str, Tensor]) -> tuple[dict[str, dict[Part, str]], list[str]]:
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


def _check_halves(layers: Mapping[str, Mapping[Part, str]], file: Path) -> None:
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
