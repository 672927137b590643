"""Weight files and folders in, a strict network out; and NVIDIA's single file out.

Accepted: what torch.save wrote (``torch_file``), safetensors in one file or shards, folders of diffusers; tensors under
``net.*`` (and ``logvar.*``), with or without the ``net.`` prefix, with or without the extra position embedding. LoRA
corrections are merged: those in a file (``lora_files``), then those of an adapter in its folder (``adapter``). Missing,
extra or misshaped keys are errors that list them. Files are memory-mapped, shards one at a time, and the network is
built without memory until it is filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.checkpoint import diffusers_folder, safetensors_files
from cosmos_worker.checkpoint.adapter import merge_adapter, read_adapter
from cosmos_worker.checkpoint.lora_files import merge_corrections, plain_names
from cosmos_worker.checkpoint.torch_file import EXTRA_STATE_SUFFIX, read_torch_file
from cosmos_worker.checkpoint.weight_files import has_adapter, locate
from cosmos_worker.data.weight_forms import LOGVAR_FILE, TRANSFORMER_FOLDER
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


def read_weight_file(path: Path, lora_scale: float | None = None) -> Mapping[str, Tensor]:
    """Tensors of a weight file or folder under ``net.*`` and ``logvar.*`` names, memory-mapped when asked for.

    Args:
        path: a file, or a folder with any form, and with PEFT's adapter of these weights or without.
        lora_scale: factor of the LoRA corrections in the weight files, which are merged; None = as they say, or there
            are none. An adapter says its own.

    Raises:
        CheckpointError: missing, truncated or unsafe file, or something else than a flat dict of tensors.
        ConfigError: a scale for what is not there.
    """
    if not has_adapter(path):
        return merge_corrections(_read_tensors(path), path, lora_scale)
    state = merge_corrections(_read_tensors(path), locate(path), lora_scale)
    return merge_adapter(state, read_adapter(path), path)


def _read_tensors(path: Path) -> Mapping[str, Tensor]:
    file = locate(path)
    if not safetensors_files.is_safetensors(file):
        state = read_torch_file(file)
        return {new: state[old] for old, new in _own_names(state).items()}
    places = safetensors_files.find_tensors(file)
    beside = file.parent.parent / LOGVAR_FILE
    if file.parent.name == TRANSFORMER_FOLDER and beside.is_file():
        places |= safetensors_files.find_tensors(beside)
    return safetensors_files.LazyTensors(
        {new: places[old] for old, new in _own_names(places).items()}
    )


def _own_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a file → ours, without extra states."""
    plain = plain_names(name for name in names if not name.endswith(EXTRA_STATE_SUFFIX))
    ours = _reference_names(list(plain.values()))
    return {name: ours[new] for name, new in plain.items()}


def _reference_names(kept: list[str]) -> dict[str, str]:
    """Of diffusers, or without the prefix, → the reference's."""
    renamed = diffusers_folder.reference_names(kept)
    if renamed is not None:
        return renamed
    bare = not any(name.startswith("net.") for name in kept)
    return {
        name: f"net.{name}" if bare and not name.startswith(LOGVAR_PREFIX) else name
        for name in kept
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


def open_model(
    path: Path,
    config: NetConfig,
    rope_dtype: torch.dtype = torch.float32,
    lora_scale: float | None = None,
) -> tuple[CosmosModel, Mapping[str, Tensor]]:
    """The network on the meta device, and the weights that fit it, still in their files.

    Raises like :func:`load_model`.
    """
    state = read_weight_file(path, lora_scale)
    extra = has_extra_pos_emb(state, config.extra_pos_emb, path)
    with_logvar = any(key.startswith(LOGVAR_PREFIX) for key in state)
    described = diffusers_folder.read_config(locate(path))
    if described is not None:
        diffusers_folder.check_config(described, config, extra, locate(path))
    with torch.device("meta"):
        model = CosmosModel(config, extra, rope_dtype)
    check_keys(state, model, path, with_logvar)
    return model, state


@torch.no_grad()
def fill_model(model: CosmosModel, state: Mapping[str, Tensor]) -> None:
    """Give a network without values those of a file, one tensor at a time; of a sharded one, what this process has.

    Without ``logvar.*`` (network only) the uncertainty head is neutral.
    """
    model.net.pos_embedder.init_positions()
    if not any(key.startswith(LOGVAR_PREFIX) for key in state):
        model.init_logvar(torch.Generator().manual_seed(0))
    for key, target in model.state_dict().items():
        if key in state and key not in OPTIONAL_KEYS:
            fill(target, state[key])


def load_model(
    path: Path,
    config: NetConfig,
    rope_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    lora_scale: float | None = None,
) -> CosmosModel:
    """Build network and uncertainty head with the weights of a file or folder, float32.

    Host memory holds the network, if that is its device, and the pages of one file.

    Raises:
        CheckpointError: unreadable file or keys that do not fit.
        ConfigError: the extra position embedding is asked for and absent, or the other way round.
    """
    model, state = open_model(path, config, rope_dtype, lora_scale)
    model = model.to_empty(device=device)
    fill_model(model, state)
    return model


def load_network(
    path: Path,
    config: NetConfig,
    device: torch.device | str = "cpu",
    lora_scale: float | None = None,
) -> CosmosDiT:
    """The network alone, for sampling: eval mode, no gradients. Raises like :func:`load_model`."""
    model = load_model(path, config, device=device, lora_scale=lora_scale)
    return model.net.requires_grad_(False).eval()


def save_weight_file(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Write a flat dict atomically, each tensor with storage of its own.

    Args:
        path: the reference loads it as ``<name>/model.pt``.
        state: under ``net.*`` and ``logvar.*``.
        dtype: type of floating-point tensors; None = as they are.
    """
    flat = {
        key: value.detach().to("cpu", safetensors_files.target_dtype(value, dtype), copy=True)
        for key, value in state.items()
    }
    with atomic_write(path) as stream:
        torch.save(flat, stream)
