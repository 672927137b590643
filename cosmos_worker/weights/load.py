"""Weight files and folders in, a strict network out; and NVIDIA's single file out.

Accepted: what torch.save wrote (``torch_file``), safetensors in one file or shards, folders of diffusers and of
torch.distributed.checkpoint; tensors under ``net.*`` (and ``logvar.*``) after whatever prefix (``tensor_names``), with
or without the extra position embedding, in floating point of 8 bits or more (``float8_weights``). LoRA corrections are
merged: those in a file (``lora``), then those of an adapter in its folder (``adapter``). Missing, extra or
misshaped keys, and values that are not finite, are errors that list them. Files are memory-mapped, shards one at a
time, and the network is built without memory until it is filled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cosmos_worker.config.experiment import NetConfig
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.model.dit import CosmosDiT, CosmosModel
from cosmos_worker.model.dtensor import (
    fill,
    local_part,
)
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.storage.file_kinds import refuse_pointers
from cosmos_worker.storage.volumes import atomic_write
from cosmos_worker.weights import diffusers
from cosmos_worker.weights.adapter import (
    merge_adapter,
    read_adapter,
)
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
from cosmos_worker.weights.safetensors import target_dtype
from cosmos_worker.weights.tensor_files import open_tensors
from cosmos_worker.weights.tensor_names import own_names
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
    Prefer,
    Renamed,
    Unfinished,
    count_not_finite,
    describe,
    refuse_not_finite,
)
from cosmos_worker.weights.torch_file import EXTRA_STATE_SUFFIX

EXTRA_PREFIX = "net.extra_pos_embedder."
OPTIONAL_KEYS = ("net.pos_embedder.seq",)
"""Buffers that follow from the configuration, so files may lack them."""
LOGVAR_PREFIX = "logvar."
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
BLOCK = re.compile(r"^net\.blocks\.block(\d+)\.")
OTHER_BLOCK = re.compile(r"^net\.blocks\.\d+\.")
"""Names of the blocks of Cosmos-Predict2, which is another network."""
SHOWN_KEYS = 8


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
        is_known: whether its content is known to be right, so that no checksums are compared.
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
    """Tensors of two files."""

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
    """What to do about weights that do not fit; another size is another matter than other names or types.

    Args:
        state: the weights.
        fitting: names that are there as they should be.
        wrong: whether any of these has another shape, and another type.
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
        blocks = f"it has {len(numbers)} blocks: " if numbers else ""
        return f"{blocks}use the experiment of this model's size"
    return "save the network's whole state_dict(), with floating-point weights and nothing else, or fetch it again"


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
    """Give a network without values those of a file, one tensor at a time; of a sharded one, what this process has.

    Without ``logvar.*`` (network only) the uncertainty head is neutral.

    Args:
        model: on its device.
        state: of :func:`open_model`.
        where: file or folder, for messages; None = values that were just drawn.

    Raises:
        CheckpointError: weights that are not finite, with their names and numbers.
    """
    unfinished = Unfinished()
    model.net.pos_embedder.init_positions()
    if not any(key.startswith(LOGVAR_PREFIX) for key in state):
        model.init_logvar(torch.Generator().manual_seed(0))
    for key, target in model.state_dict().items():
        if key in state and key not in OPTIONAL_KEYS:
            fill(target, state[key])
            unfinished.add(key, local_part(target))
    unfinished.check(where)


def check_finite(state: Mapping[str, Tensor], where: Path) -> None:
    """Look at all values, tensor by tensor.

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
        key: value.detach().to("cpu", target_dtype(value, dtype), copy=True)
        for key, value in state.items()
    }
    with atomic_write(path) as stream:
        torch.save(flat, stream)
