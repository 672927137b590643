"""Weight files: NVIDIA's key names in, a strict network out; and the other way round.

Accepted: flat dicts of ``net.*`` (and ``logvar.*``), with or without the ``net.`` prefix, with or without the extra
position embedding, saved by torch.save, loadable with weights_only=True. Missing, extra or misshaped keys are errors
that list them.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.layout import atomic_write
from cosmos_worker.model.dit import CosmosDiT, CosmosModel
from cosmos_worker.model.shards import fill
from cosmos_worker.options import NetConfig

EXTRA_PREFIX = "net.extra_pos_embedder."
OPTIONAL_KEYS = ("net.pos_embedder.seq",)
"""Buffers that follow from the configuration, so files may lack them."""
LOGVAR_PREFIX = "logvar."
SHOWN_KEYS = 8


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read a weight file, memory-mapped, and return its tensors under ``net.*`` and ``logvar.*`` names.

    Raises:
        CheckpointError: missing, truncated or unsafe file, or something else than a flat dict of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file; expected model.pt or iter_*_model.pt")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read as a weight file ({reason}); fetch or publish it again"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: holds {type(state).__name__}, not a flat dict of tensors; expected keys net.* and logvar.*"
        )
    if any(key.startswith("net.") for key in state):
        return state
    return {
        key if key.startswith(LOGVAR_PREFIX) else f"net.{key}": value
        for key, value in state.items()
    }


def has_extra_pos_emb(
    keys: Mapping[str, object], wanted: Literal["auto", "learnable", "none"], where: Path
) -> bool:
    """Whether to build the extra position embedding: as the file has it; a disagreement is an error.

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
    missing = [key for key in expected if key not in state and key not in OPTIONAL_KEYS]
    extra = [key for key in state if key not in expected]
    misshaped = [
        f"{key} (got {tuple(state[key].shape)}, expected {tuple(value.shape)})"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape and key not in OPTIONAL_KEYS
    ]
    problems = [
        f"{len(keys)} {what}: {_listing(keys)}"
        for what, keys in (("missing", missing), ("extra", extra), ("misshaped", misshaped))
        if keys
    ]
    if problems:
        config = model.net.config
        raise CheckpointError(
            f"{where}: does not fit the network (model_channels {config.model_channels}, num_blocks "
            f"{config.num_blocks}): {'; '.join(problems)}; use the experiment of this model's size"
        )


def load_model(
    path: Path, config: NetConfig, rope_dtype: torch.dtype = torch.float32
) -> CosmosModel:
    """Build network and uncertainty head with the weights of a file, float32, on the CPU.

    A file without ``logvar.*`` (network only) gets a neutral uncertainty head.

    Raises:
        CheckpointError: unreadable file or keys that do not fit.
        ConfigError: the extra position embedding is asked for and absent, or the other way round.
    """
    model, state = open_model(path, config, rope_dtype)
    model = model.to_empty(device="cpu")
    fill_model(model, state)
    return model


def open_model(
    path: Path, config: NetConfig, rope_dtype: torch.dtype = torch.float32
) -> tuple[CosmosModel, dict[str, Tensor]]:
    """The network on the meta device, and the weights that fit it, still in their file.

    Raises like :func:`load_model`.
    """
    state = read_weight_file(path)
    extra = has_extra_pos_emb(state, config.extra_pos_emb, path)
    with_logvar = any(key.startswith(LOGVAR_PREFIX) for key in state)
    with torch.device("meta"):
        model = CosmosModel(config, extra, rope_dtype)
    check_keys(state, model, path, with_logvar)
    return model, state


@torch.no_grad()
def fill_model(model: CosmosModel, state: Mapping[str, Tensor]) -> None:
    """Give a network without values those of a file: of a sharded one, what this process has."""
    model.net.pos_embedder.init_positions()
    if not any(key.startswith(LOGVAR_PREFIX) for key in state):
        model.init_logvar(torch.Generator().manual_seed(0))
    for key, target in model.state_dict().items():
        if key in state and key not in OPTIONAL_KEYS:
            fill(target, state[key])


def load_network(path: Path, config: NetConfig, device: torch.device | str = "cpu") -> CosmosDiT:
    """The network alone, for sampling: eval mode, no gradients. Raises like :func:`load_model`."""
    net = load_model(path, config).net
    return net.requires_grad_(False).eval().to(device)


def save_weight_file(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write a flat dict atomically; floating-point tensors in ``dtype``, each with storage of its own."""
    flat = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).clone()
        for key, value in state.items()
    }
    with atomic_write(path) as stream:
        torch.save(flat, stream)
