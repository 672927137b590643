"""Layer and part of a low-rank correction by the name of its tensor.

Known are those of NVIDIA's LoRA post-training (``to_q_lora.net.{0,1}.weight``), PEFT (``lora_{A,B}.weight``, with the
adapter's name or without), diffusers (``lora.{down,up}.weight``) and kohya (``lora_{down,up}.weight``, with dots or,
after ``lora_unet_``, with underscores), each with ``alpha`` or without. Other kinds of corrections are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.diffusers import (
    BLOCK,
    diffusers_names,
)

Part = Literal["A", "B", "alpha", "magnitude"]

NVIDIA = re.compile(r"^(?P<layer>.+\.to_(?:q|k|v|out))_lora\.net\.(?P<part>[01])\.weight$")
PEFT = re.compile(r"^(?P<layer>.+)\.lora_(?P<part>[AB])(?:\.[^.]+)?\.weight$")
DOWN_UP = re.compile(r"^(?P<layer>.+?)(?:\.lora\.|\.lora_)(?P<part>down|up)(?:\.[^.]+)?\.weight$")
ALPHA = re.compile(r"^(?P<layer>.+)\.(?:lora_)?alpha$")
MAGNITUDE = re.compile(r"^(?P<layer>.+)\.lora_magnitude_vector(?:\.[^.]+)*$")
OTHER_KIND = re.compile(
    r"(?:^|[._])(?:lokr_|hada_|oft_|boft_|ia3_|vera_lambda|glora_|lora_mid|lora_embedding_|randlora_|hra_|fourierft_|"
    r"bone_|miss_|shira_|dora_scale|norm_weights?\b)|\.lora_B(?:\.\w+)?\.bias$|\.lora_bias|\.diff(?:_b)?$|"
    r"\.processor\.\w+_lora\."
)
"""Corrections that are no product of two matrices, or belong to layers with a bias."""
FLAT_PREFIX = "lora_unet_"
OTHER_NETWORKS = ("text_encoder", "text_encoder_2", "lora_te", "lora_te1", "te", "text_encoders")
PREFIXES = (
    "base_model.model.", "transformer.", "model.diffusion_model.", "diffusion_model.", "unet.", "model.", "module.",
    "_orig_mod.",
)  # fmt: skip
"""Prefixes that writers of adapters put before the names of layers."""
INNER = ("net.", "logvar.", "blocks.", "transformer_blocks.")


def split_name(name: str) -> tuple[str, Part] | None:
    """Layer and part of a correction's tensor; None for other tensors."""
    if match := NVIDIA.match(name):
        return f"{match['layer']}.0", "A" if match["part"] == "0" else "B"
    if match := PEFT.match(name):
        return match["layer"], "A" if match["part"] == "A" else "B"
    if match := DOWN_UP.match(name):
        return match["layer"], "A" if match["part"] == "down" else "B"
    if match := MAGNITUDE.match(name):
        return match["layer"], "magnitude"
    if match := ALPHA.match(name):
        return match["layer"], "alpha"
    return None


def is_correction(name: str) -> bool:
    """True if a tensor is part of a correction of any kind."""
    split = split_name(name)
    return (split is not None and split[1] != "alpha") or OTHER_KIND.search(name) is not None


def refuse_other_kinds(names: Iterable[str], where: Path) -> None:
    """Refuse corrections of kinds that cannot be merged here.

    Raises:
        CheckpointError: there is one; with its name.
    """
    for name in names:
        if OTHER_KIND.search(name):
            raise CheckpointError(
                f"{where}: {name} is a correction of another kind than LoRA's B A, which cannot be merged here; merge "
                "it with the library that trained it and give the whole weights"
            )
        if name.partition(".")[0] in OTHER_NETWORKS or name.startswith(("lora_te_", "lora_te1_")):
            raise CheckpointError(
                f"{where}: {name} corrects a text encoder, and prompts are encoded by T5 as it is; save the adapter "
                "without it"
            )


def module_name(layer: str) -> str:
    """Name of a layer as the library that loads the adapter has it: without the prefixes of saving."""
    while not layer.startswith(INNER):
        prefix = next((one for one in PREFIXES if layer.startswith(one)), None)
        if prefix is None:
            break
        layer = layer.removeprefix(prefix)
    return layer


def own_layers(layers: Iterable[str], where: Path) -> dict[str, str]:
    """Name of a layer in an adapter → ours, such as ``net.blocks.block0.blocks.0.block.attn.to_q.0``.

    Raises:
        CheckpointError: a name without dots that is of no layer.
    """
    modules = {layer: module_name(layer) for layer in layers}
    blocks = [int(m[1]) for name in modules.values() if (m := BLOCK.match(name))]
    blocks += [
        int(n)
        for name in modules.values()
        for n in re.findall(r"blocks[._](?:block)?(\d+)[._]", name)
    ]
    names = diffusers_names(min(max(blocks, default=-1), 999) + 1)
    ours = {
        theirs.removesuffix(".weight"): own.removesuffix(".weight") for own, theirs in names.items()
    }
    flat = _flat_names(ours)
    found = {}
    for layer, module in modules.items():
        if module.startswith(FLAT_PREFIX):
            own = flat.get(module.removeprefix(FLAT_PREFIX))
            if own is None:
                raise CheckpointError(
                    f"{where}: corrects {layer}, which is no layer of this network; use an adapter of Cosmos-Predict1"
                )
        else:
            bare = module.removesuffix(".weight")  # of a tensor that is saved whole
            own = ours[bare] + module.removeprefix(bare) if bare in ours else module
        found[layer] = own if own.startswith(("net.", "logvar.")) else f"net.{own}"
    return found


def _flat_names(ours: Mapping[str, str]) -> dict[str, str]:
    """Names with underscores for dots, of diffusers and of the reference → ours."""
    flat = {theirs.replace(".", "_"): own for theirs, own in ours.items()}
    for own in ours.values():
        flat[own.removeprefix("net.").replace(".", "_")] = own
        flat[own.replace(".", "_")] = own
    return flat
