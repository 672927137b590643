"""Compare the tensors of a file with the network that is to be built: names, shapes and types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.storage.files import counted
from cosmos_worker.weights.tensors import LOGVAR_PREFIX, describe

EXTRA_PREFIX = "net.extra_pos_embedder."
OPTIONAL_KEYS = ("net.pos_embedder.seq",)
"""Buffers that follow from the configuration, so files may lack them."""
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BLOCK = re.compile(r"^net\.blocks\.block(\d+)\.")
OTHER_BLOCK = re.compile(r"^net\.blocks\.\d+\.")
"""Names of the blocks of Cosmos-Predict2, which is another network."""
SHOWN_KEYS = 8


def has_extra_pos_emb(
    keys: Mapping[str, object], wanted: Literal["auto", "learnable", "none"], where: Path
) -> bool:
    """True if the network has the extra position embedding, as the file has it; a disagreement is an error.

    Raises:
        ConfigError: net.extra_pos_emb asks for the opposite of what the file holds.
    """
    present = any(key.startswith(EXTRA_PREFIX) for key in keys)
    if wanted != "auto" and present != (wanted == "learnable"):
        raise ConfigError(
            f"net.extra_pos_emb: got {wanted!r}, but {where} {'has' if present else 'lacks'} "
            f"{EXTRA_PREFIX}*; use 'auto'"
        )
    return present


def _listing(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return ", ".join(keys[:SHOWN_KEYS]) + more


def check_keys(
    state: Mapping[str, Tensor], model: CosmosModel, where: Path, with_logvar: bool
) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: one message with all missing, extra and misshaped keys.
    """
    expected = model.state_dict()
    if not with_logvar:
        expected = {
            key: value for key, value in expected.items() if not key.startswith(LOGVAR_PREFIX)
        }
    checked = [key for key in expected if key in state and key not in OPTIONAL_KEYS]
    found = {key: describe(state, key) for key in checked}
    missing = [key for key in expected if key not in state and key not in OPTIONAL_KEYS]
    extra = [key for key in state if key not in expected]
    misshaped = [
        f"{key} (got {found[key].shape}, expected {tuple(expected[key].shape)})"
        for key in checked
        if found[key].shape != expected[key].shape
    ]
    mistyped = [
        f"{key} ({str(found[key].dtype).removeprefix('torch.')})"
        for key in checked
        if found[key].dtype not in FLOATS
    ]
    problems = [
        f"{len(keys)} {what}: {_listing(keys)}"
        for what, keys in (
            ("missing", missing),
            ("extra", extra),
            ("misshaped", misshaped),
            ("that are no floating-point weights", mistyped),
        )
        if keys
    ]
    if problems:
        config = model.net.config
        advice = _advice(state, checked, (bool(misshaped), bool(mistyped)), model)
        raise CheckpointError(
            f"{where}: does not fit the network (model_channels {config.model_channels}, num_blocks "
            f"{config.num_blocks}): {'; '.join(problems)}; {advice}"
        )


def _advice(
    state: Mapping[str, Tensor], fitting: list[str], wrong: tuple[bool, bool], model: CosmosModel
) -> str:
    """Advice about weights that do not fit, by the difference: size, names or types.

    Args:
        state: the weights.
        fitting: names that are there as they should be.
        wrong: True where any of these has another shape, and where any has another type.
        model: the network.
    """
    is_misshaped, is_mistyped = wrong
    if is_mistyped:
        return "quantised weights cannot be read here: give the network in bfloat16 or float32"
    if any(OTHER_BLOCK.match(name) for name in state):
        return "these are names of another network, such as that of Cosmos-Predict2: give weights of Cosmos-Predict1"
    if not fitting:
        return "none of its names is there: give a file with the whole state_dict() of a network of Cosmos-Predict1"
    numbers = {int(match[1]) for name in state if (match := BLOCK.match(name))}
    if is_misshaped or numbers != set(range(model.net.config.num_blocks)):
        blocks = f"it has {counted(len(numbers), 'block')}: " if numbers else ""
        return f"{blocks}use the experiment of this model's size"
    return "save the network's whole state_dict(), with floating-point weights and nothing else, or fetch it again"
