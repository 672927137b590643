"""Load weight files and folders into a network, strictly; write NVIDIA's single file.

Accepted: what torch.save wrote (``torch_file``), safetensors in one file or shards, folders of diffusers and of
torch.distributed.checkpoint; tensors under ``net.*`` (and ``logvar.*``) after whatever prefix (``tensor_names``), with
or without the extra position embedding, in floating point of 8 bits or more (``float8_weights``). LoRA corrections are
merged: those in a file (``lora``), then those of an adapter in its folder (``adapter``). Missing, extra or
misshaped keys, and values that are not finite, are errors that list them. Files are memory-mapped, shards one at a
time, and the network is built without memory until it is filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.config.network import NetConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.model.dit import CosmosDiT, CosmosModel
from cosmos_worker.model.dtensor import (
    copy_own_shard,
    local_part,
)
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.storage.file_kinds import refuse_pointers
from cosmos_worker.storage.volumes import atomic_write
from cosmos_worker.weights import diffusers
from cosmos_worker.weights.adapter import merge_adapter
from cosmos_worker.weights.adapter_reading import read_adapter
from cosmos_worker.weights.dcp import DcpTensors, is_dcp
from cosmos_worker.weights.files import (
    has_adapter,
    list_files,
    locate,
    refuse_unused_corrections,
)
from cosmos_worker.weights.float8_weights import dequantise
from cosmos_worker.weights.forms import (
    LOGVAR_FILE,
    TRANSFORMER_FOLDER,
)
from cosmos_worker.weights.lora import merge_corrections
from cosmos_worker.weights.network_keys import OPTIONAL_KEYS, check_keys, has_extra_pos_emb
from cosmos_worker.weights.safetensors import target_dtype
from cosmos_worker.weights.tensor_files import open_tensors
from cosmos_worker.weights.tensor_names import own_names
from cosmos_worker.weights.tensors import (
    LOGVAR_PREFIX,
    Described,
    FiniteCheck,
    LazyMapping,
    Prefer,
    Renamed,
    count_not_finite,
    describe,
    refuse_not_finite,
)
from cosmos_worker.weights.torch_file import EXTRA_STATE_SUFFIX


def read_weight_file(
    path: Path,
    lora_scale: float | None = None,
    prefer: Prefer = "average",
    check_content: bool = True,
) -> Mapping[str, Tensor]:
    """Tensors of a weight file or folder under ``net.*`` and ``logvar.*`` names, memory-mapped when asked for.

    Args:
        path: a file, or a folder with any form, and with an adapter of these weights or without.
        lora_scale: factor of the LoRA corrections in the weight files, which are merged; None = as they say, or there
            are none. An adapter says its own.
        prefer: what is taken of a file that has the network and its average.
        check_content: compare checksums and recorded digests; False = this was done in this process.

    Raises:
        CheckpointError: missing, truncated, damaged, changed or unsafe file, or no network's tensors.
        ConfigError: a scale for what is not there.
    """
    file = locate(path)
    files = list_files(path)
    refuse_pointers(files)
    refuse_unused_corrections(path, files)
    is_known = not check_content or all([check_recorded(one) for one in files if one.is_file()])
    state = read_network_tensors(file, is_known, prefer)
    if not has_adapter(path):
        return merge_corrections(state, path, lora_scale)
    state = merge_corrections(state, file, lora_scale)
    return merge_adapter(state, read_adapter(path), path)


def read_network_tensors(
    file: Path, is_known: bool, prefer: Prefer = "average"
) -> Mapping[str, Tensor]:
    """Tensors of a file, an index of shards, or metadata of torch.distributed.checkpoint, under our names.

    Args:
        file: of :func:`locate`.
        is_known: True if its content is known to be right, so that no checksums are compared.
        prefer: what is taken of a file that has the network and its average.

    Raises:
        CheckpointError: a damaged file, or something else than a network's tensors.
    """
    tensors = DcpTensors(file) if is_dcp(file) else open_tensors(file, is_known, prefer)
    beside = file.parent.parent / LOGVAR_FILE
    if file.parent.name == TRANSFORMER_FOLDER and beside.is_file():
        tensors = _Joined(tensors, open_tensors(beside, is_known))
    kept = [name for name in tensors if not name.endswith(EXTRA_STATE_SUFFIX)]
    names = own_names(kept, file, prefer)
    taken = {ours: name for name, ours in names.items()}
    if len(taken) < len(names):
        twice = next(name for name, ours in names.items() if taken[ours] != name)
        raise CheckpointError(
            f"{file}: {twice} and {taken[names[twice]]} are one tensor of the network; save it once"
        )
    return dequantise(Renamed(tensors, taken), file)


class _Joined(LazyMapping):
    """The tensors of two files together."""

    def __init__(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        self._of = {**dict.fromkeys(first, first), **dict.fromkeys(second, second)}

    def __getitem__(self, name: str) -> Tensor:
        return self._of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        return describe(self._of[name], name)


def open_model(
    path: Path,
    config: NetConfig,
    rope_dtype: torch.dtype = torch.float32,
    lora_scale: float | None = None,
    prefer: Prefer = "average",
) -> tuple[CosmosModel, Mapping[str, Tensor]]:
    """The network on the meta device, and the weights that fit it, still in their files.

    Raises like :func:`load_model`.
    """
    state = read_weight_file(path, lora_scale, prefer)
    extra = has_extra_pos_emb(state, config.extra_pos_emb, path)
    with_logvar = any(key.startswith(LOGVAR_PREFIX) for key in state)
    described = diffusers.read_config(locate(path))
    if described is not None:
        diffusers.check_config(described, config, extra, locate(path))
    with torch.device("meta"):
        model = CosmosModel(config, extra, rope_dtype)
    check_keys(state, model, path, with_logvar)
    return model, state


@torch.no_grad()
def fill_model(model: CosmosModel, state: Mapping[str, Tensor], where: Path | None = None) -> None:
    """Copy the values of a file into a network, one tensor at a time; of a sharded network, those of this process.

    Without ``logvar.*`` (network only) the uncertainty head is neutral.

    Args:
        model: on its device.
        state: of :func:`open_model`.
        where: file or folder, for messages; None = values that were just drawn.

    Raises:
        CheckpointError: weights that are not finite, with their names and numbers.
    """
    check = FiniteCheck()
    model.net.pos_embedder.init_positions()
    if not any(key.startswith(LOGVAR_PREFIX) for key in state):
        model.init_logvar(torch.Generator().manual_seed(0))
    for key, target in model.state_dict().items():
        if key in state and key not in OPTIONAL_KEYS:
            copy_own_shard(target, state[key])
            check.add(key, local_part(target))
    check.check(where)


def check_finite(state: Mapping[str, Tensor], where: Path) -> None:
    """Check all values, tensor by tensor.

    Raises:
        CheckpointError: some are not finite, with their names and numbers.
    """
    counts = {name: count_not_finite(state[name]) for name in state}
    refuse_not_finite({name: count for name, count in counts.items() if count}, where)


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
    fill_model(model, state, path)
    return model


def load_network(
    path: Path,
    config: NetConfig,
    device: torch.device | str = "cpu",
    lora_scale: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> CosmosDiT:
    """The network alone, for sampling: eval mode, no gradients.

    Args:
        path: file or folder.
        config: shape.
        device: of the weights.
        lora_scale: see :func:`read_weight_file`.
        dtype: of the matrices, the type in which autocast multiplies them; norms and position tables stay float32.
            The network then computes to the bit what it computes with float32 weights, from half the memory.

    Raises like :func:`load_model`.
    """
    model, state = open_model(path, config, lora_scale=lora_scale)
    for module in model.net.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(dtype)
    model = model.to_empty(device=device)
    fill_model(model, state, path)
    return model.net.requires_grad_(False).eval()


def save_weight_file(path: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Write a flat dict atomically, each tensor with storage of its own.

    Args:
        path: the reference loads it as ``<name>/model.pt``.
        state: under ``net.*`` and ``logvar.*``.
        dtype: type of floating-point tensors; None = as they are.
    """
    flat = {
        key: value.detach().to("cpu", target_dtype(value, dtype), copy=True)
        for key, value in state.items()
    }
    with atomic_write(path) as stream:
        torch.save(flat, stream)
