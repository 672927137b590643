"""Weights in safetensors: one file, or shards named by an index; read and written one shard at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import write_json
from cosmos_worker.weights.forms import (
    INDEX_SUFFIX,
    SUFFIX,
    read_index,
)

TensorLocation = tuple[Path, str]
"""File of a tensor, and its name in it."""


class LazyTensors(Mapping[str, Tensor]):
    """Tensors that are mapped when asked for. One file is open at a time, so that no other is in memory."""

    def __init__(self, locations: Mapping[str, TensorLocation]) -> None:
        self._locations = dict(locations)
        self._open: tuple[Path, Callable[[str], Tensor]] | None = None

    def __getitem__(self, name: str) -> Tensor:
        path, name_in_file = self._locations[name]
        if self._open is None or self._open[0] != path:
            self._open = None  # before the next is opened
            self._open = (path, _open(path).get_tensor)
        return self._open[1](name_in_file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such shard; fetch the model again") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as a weight file ({error}); fetch or publish it again"
        ) from None


def find_tensors(path: Path) -> dict[str, TensorLocation]:
    """All tensors of a file, or of the shards of an index, with their locations.

    Raises:
        CheckpointError: a damaged file or index, a missing shard, a tensor that is not where the index says.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return {name: (path, name) for name in _open(path).keys()}  # noqa: SIM118 - no mapping
    locations = {name: (path.parent / file, name) for name, file in read_index(path).items()}
    for shard in sorted({file for file, _ in locations.values()}):
        absent = {name for name, (file, _) in locations.items() if file == shard} - set(
            _open(shard).keys()
        )
        if absent:
            raise CheckpointError(
                f"{shard}: lacks {counted(len(absent), 'tensor')} that {path.name} names, such as {min(absent)}; "
                "fetch the model again"
            )
    return locations


# --- writing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Type of the written tensors, and size of the files."""

    dtype: torch.dtype | None = None
    """Type of floating-point tensors; None = as they are."""
    shard_bytes: int = 4 << 30
    """Largest file; a tensor that is larger gets one for itself."""


def target_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Type to write a tensor in: ``dtype`` for floating point unless it is None."""
    return tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype


def _size(tensor: Tensor, dtype: torch.dtype | None) -> int:
    """Bytes of a tensor as it will be written."""
    return tensor.numel() * target_dtype(tensor, dtype).itemsize


def _shards(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], limits: Limits
) -> list[dict[str, str]]:
    """The names in their order, cut where a shard would exceed its size."""
    shards: list[dict[str, str]] = [{}]
    room = limits.shard_bytes
    for name, key in names.items():
        size = _size(tensors[key], limits.dtype)
        if shards[-1] and size > room:
            shards.append({})
            room = limits.shard_bytes
        shards[-1][name] = key
        room -= size
    return shards


def write_shards(
    folder: Path, stem: str, tensors: Mapping[str, Tensor], names: Mapping[str, str], limits: Limits
) -> None:
    """Write ``<stem>.safetensors``, or ``<stem>-00001-of-0000N.safetensors`` and their index.

    Args:
        folder: exists.
        stem: model, or what diffusers calls its files.
        tensors: by key; one shard at a time is read and held.
        names: name to write → key in tensors.
        limits: type of the tensors, size of the files.

    Raises:
        OSError: disk full or another failed write.
    """
    shards = _shards(tensors, names, limits)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        part = "" if len(shards) == 1 else f"-{number:05d}-of-{len(shards):05d}"
        path = folder / f"{stem}{part}{SUFFIX}"
        _write_shard(path, {name: tensors[key] for name, key in shard.items()}, limits.dtype)
        index |= dict.fromkeys(shard, path.name)
    if len(shards) > 1:
        total = sum(_size(tensors[key], limits.dtype) for key in names.values())
        document = {"metadata": {"total_size": total}, "weight_map": index}
        write_json(folder / f"{stem}{INDEX_SUFFIX}", document)


def _write_shard(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Write and sync one file."""
    own = {  # safetensors refuses tensors that share a storage, such as that of a mapped file
        name: tensor.detach().to("cpu", target_dtype(tensor, dtype), copy=True).contiguous()
        for name, tensor in tensors.items()
    }
    try:
        save_file(own, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from None
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
