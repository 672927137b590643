"""Tensors in folders of torch.distributed.checkpoint, each read alone, in one process.

NVIDIA's newer trainers and torchtitan save such folders. Their ``.metadata`` is a pickle, which is a program, and
PyTorch's own reader runs it. Here every name in it is replaced by an inert stand-in, and a file that names anything
but the parts of such metadata is refused.

Source: torch 2.15, torch/distributed/checkpoint/metadata.py and filesystem.py.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import (
    describe_pointer,
    is_pointer,
)
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
)
from cosmos_worker.weights.torch_pickle import (
    InertUnpickler,
    TensorRef,
    read_pickle,
    shown,
)
from cosmos_worker.weights.torch_zip import (
    Record,
    check_crc,
    has_checksums,
    read_records,
)

METADATA_FILE = ".metadata"
NESTED_FOLDER = "model"
"""Folder in which NVIDIA's newer trainers keep the network, beside the states of optimizer and scheduler."""
MAX_BYTES = 1 << 28
MODULES = (
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed._shard.sharded_tensor.metadata",
    "torch.distributed._shard.metadata",
)
CLASSES = (
    "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
    "TensorProperties", "StorageMeta", "_StorageInfo", "_MEM_FORMAT_ENCODING", "MEM_FORMAT_ENCODING", "ShardMetadata",
)  # fmt: skip
ENUMERATIONS = ("_MEM_FORMAT_ENCODING", "MEM_FORMAT_ENCODING")
OTHER_NAMES = {
    "torch": None,  # types of tensors, and Size
    "torch.serialization": ("_get_layout",),
    "collections": ("OrderedDict",),
    "pathlib": ("PosixPath", "PurePosixPath", "Path"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "Path"),
    "builtins": ("set", "frozenset"),
}
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "float4_e2m1fn_x2", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "bool", "complex32", "complex64", "complex128",
)  # fmt: skip
REMEDY = "fetch the model again"
CONVERT = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
"""Makes one file of a folder. It runs the folder's pickle, so it is for folders that are trusted."""


@dataclass(frozen=True)
class Chunk:
    """A block of a tensor, written by torch.save into a part of a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a folder: shape, name of its type such as ``bfloat16``, and the blocks that it is made of."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[Chunk, ...]


class _StandIn:
    """Stands for an object of a class, and keeps its state."""

    kind = ""

    def __init__(self, *values: object) -> None:
        self.values = values
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.fields = state
        elif isinstance(state, tuple):
            self.values = state


def _member(enumeration: object, name: object) -> _StandIn:
    """The stand-in for a member of an enumeration, as Python 3.11.0 to 3.11.3 pickle one; nothing else has any."""
    kind = getattr(enumeration, "kind", "")
    if kind not in ENUMERATIONS or not isinstance(name, str):
        raise pickle.UnpicklingError("it names builtins.getattr")
    return _StandIn(name)


class _Unpickler(InertUnpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """The stand-in for a name, a new one each time, as a pickle can set its attributes."""
        if module in MODULES and name in CLASSES:
            return type(name, (_StandIn,), {"kind": name})
        if (module, name) == ("builtins", "getattr"):
            return _member
        admitted = OTHER_NAMES.get(module, ())
        if admitted is None and name == "Size":
            return lambda sizes=(): tuple(sizes)
        if admitted is None and name in DTYPES:
            return type(name, (_StandIn,), {"kind": name})
        if admitted and name in admitted:
            return dict if name == "OrderedDict" else type(name, (_StandIn,), {"kind": name})
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def is_dcp(path: PurePath) -> bool:
    """True if a path is that of such metadata."""
    return path.name == METADATA_FILE


def read_dcp_metadata(path: Path, is_own_state: bool = False) -> dict[str, StoredTensor]:
    """The tensors of a folder by name.

    Args:
        path: ``.metadata`` of the folder.
        is_own_state: the folder is asked for as a part of a training's checkpoint, not as a model.

    Raises:
        CheckpointError: damaged, of a training of ours that was taken for a model, or more than such metadata.
    """
    if not is_own_state:
        refuse_own_state(path.parent)
    if is_pointer(path):
        raise CheckpointError(describe_pointer(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise pickle.UnpicklingError(f"it has {path.stat().st_size} bytes")
        with path.open("rb") as stream:
            return _tensors(_Unpickler(stream).load())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; fetch the model again") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: not the metadata of torch.distributed.checkpoint as it is known here ({reason}); fetch it again, "
            f"or, if you trust it, make one file of the folder: {CONVERT.format(folder=path.parent)}"
        ) from None


def _tensors(metadata: _StandIn) -> dict[str, StoredTensor]:
    infos: dict[tuple[str, tuple[int, ...] | None], Mapping[str, Any]] = {}
    for index, info in metadata.fields["storage_data"].items():
        offset = index.fields.get("offset")
        infos[index.fields["fqn"], None if offset is None else tuple(offset)] = info.fields
    found = {}
    for name, one in metadata.fields["state_dict_metadata"].items():
        if one.kind != "TensorStorageMetadata":
            continue
        properties = one.fields["properties"]
        dtype = (properties.values or (properties.fields.get("dtype"),))[0]
        chunks = tuple(_chunk(name, chunk, infos) for chunk in one.fields["chunks"])
        found[str(name)] = StoredTensor(
            _sizes(one.fields["size"]), str(dtype.kind or dtype.__name__), chunks
        )
    return found


def _chunk(name: str, chunk: _StandIn, infos: Mapping[Any, Mapping[str, Any]]) -> Chunk:
    offsets, sizes = _sizes(chunk.fields["offsets"]), _sizes(chunk.fields["sizes"])
    info = infos.get((name, offsets)) or infos[name, None]
    file, start, length = info["relative_path"], info["offset"], info["length"]
    if PurePosixPath(file).name != file or type(start) is not int or type(length) is not int:
        raise ValueError(f"{name} lies in {shown(file)}, and files lie beside their metadata")
    if info.get("transform_descriptors"):
        raise ValueError(f"{name} was transformed by {shown(info['transform_descriptors'])}")
    return Chunk(offsets, sizes, file, start, length)


def _sizes(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or any(type(n) is not int or n < 0 for n in value):
        raise ValueError(f"sizes {shown(value)}")
    return value


def list_dcp_files(path: Path) -> list[str]:
    """Names of the files beside such metadata that hold its tensors. Raises like :func:`read_dcp_metadata`."""
    tensors = read_dcp_metadata(path).values()
    return sorted({chunk.file for tensor in tensors for chunk in tensor.chunks})


def refuse_own_state(folder: Path) -> None:
    """Refuse a checkpoint of a training of ours, which is to resume it from.

    Raises:
        CheckpointError: it is one, and no model.
    """
    for state in (folder, folder.parent):
        if (state / "complete.json").is_file() and (state / "progress.json").is_file():
            raise CheckpointError(
                f"{folder}: the state of a training, to resume it from; its weights are in "
                f"{state.parent.parent / 'checkpoints'}: name that folder, or one iter_*_model.pt in it"
            )


class DcpTensors(LazyMapping):
    """Tensors of a folder; each is put together from its blocks when it is asked for.

    Args:
        path: ``.metadata`` of the folder.
        is_own_state: see :func:`read_dcp_metadata`.

    Raises:
        CheckpointError: damaged metadata, a missing or truncated file, or blocks that do not make up their tensor.
    """

    def __init__(self, path: Path, is_own_state: bool = False) -> None:
        self._folder, self._tensors = path.parent, read_dcp_metadata(path, is_own_state)
        sizes: dict[str, int] = {}
        for name, tensor in self._tensors.items():
            if not isinstance(getattr(torch, tensor.dtype, None), torch.dtype):
                raise CheckpointError(
                    f"{path}: {name} has an unknown type {tensor.dtype}; {REMEDY}"
                )
            _check_blocks(path, name, tensor)
            for chunk in tensor.chunks:
                sizes[chunk.file] = max(sizes.get(chunk.file, 0), chunk.start + chunk.length)
        for file, size in sizes.items():
            there = self._folder / file
            got = there.stat().st_size if there.is_file() else None
            if got is None or got < size:
                raise CheckpointError(
                    f"{there}: {'no such file' if got is None else f'truncated, it has {got} bytes'}; {path.name} of "
                    f"this folder of torch.distributed.checkpoint names {size} of its bytes; {REMEDY}"
                )

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        whole = torch.empty(tensor.shape, dtype=self.describe(name).dtype)
        for chunk in tensor.chunks:
            part = whole
            for dim, (offset, size) in enumerate(zip(chunk.offsets, chunk.sizes, strict=True)):
                part = part.narrow(dim, offset, size)
            part.copy_(_read_block(self._folder / chunk.file, chunk, name, whole.dtype))
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        tensor = self._tensors[name]
        dtype: torch.dtype = getattr(torch, tensor.dtype)
        return Described(tensor.shape, dtype)


def _check_blocks(path: Path, name: str, tensor: StoredTensor) -> None:
    """The blocks of a tensor lie in it, apart, and are all of it."""
    filled = 0
    for number, chunk in enumerate(tensor.chunks):
        filled += prod(chunk.sizes)
        is_inside = len(chunk.offsets) == len(chunk.sizes) == len(tensor.shape) and all(
            offset + size <= extent
            for offset, size, extent in zip(chunk.offsets, chunk.sizes, tensor.shape, strict=True)
        )
        if not is_inside or any(_overlap(chunk, other) for other in tensor.chunks[:number]):
            filled = -1
            break
    if filled != prod(tensor.shape):
        raise CheckpointError(
            f"{path}: the blocks of {name} do not make up its shape {tensor.shape}; {REMEDY}"
        )


def _overlap(one: Chunk, other: Chunk) -> bool:
    return all(
        max(a, b) < min(a + m, b + n)
        for a, m, b, n in zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
    )


def _read_block(file: Path, chunk: Chunk, name: str, dtype: torch.dtype) -> Tensor:
    """One block: a file of torch.save inside of another, with one tensor."""
    records = read_records(file, REMEDY, chunk.start, chunk.length)
    try:
        ref = read_pickle(_read(file, records["data.pkl"], records))
        if not isinstance(ref, TensorRef) or ref.shape != chunk.sizes or ref.dtype != dtype:
            raise ValueError(f"it holds {shown(ref)}")
        content = _read(file, records[f"data/{ref.storage.key}"], records)
        if len(content) != ref.storage.numel * ref.storage.dtype.itemsize:
            raise ValueError(f"it has {len(content)} bytes")
        if 0 in ref.shape:
            return torch.empty(ref.shape, dtype=dtype)
        flat = torch.frombuffer(bytearray(content), dtype=dtype)
        return flat.as_strided(ref.shape, ref.stride, ref.offset)
    except (KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{file}: the block of {name} at byte {chunk.start} is damaged ({error}); {REMEDY}"
        ) from None


def _read(file: Path, record: Record, records: Mapping[str, Record]) -> bytes:
    if has_checksums(records):
        check_crc(file, record, REMEDY)
    with file.open("rb") as stream:
        stream.seek(record.start)
        return stream.read(record.size)
