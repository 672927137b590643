"""Tensors in a folder of torch.distributed.checkpoint, read one by one, without process group and its import.

PyTorch's own reader runs the pickle of the metadata, so that it is not for folders of other people.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.dcp_metadata import (
    Chunk,
    StoredTensor,
    read_dcp_metadata,
)
from cosmos_worker.weights.inert_pickle import shown
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
)
from cosmos_worker.weights.torch_pickle import (
    TensorRef,
    read_pickle,
)
from cosmos_worker.weights.torch_zip import (
    Record,
    check_crc,
    has_checksums,
    read_records,
)

REMEDY = "fetch the model again"


class DcpTensors(LazyMapping):
    """Tensors of a folder; each is put together from its blocks when it is asked for.

    Args:
        path: ``.metadata`` of the folder.

    Raises:
        CheckpointError: damaged metadata, a missing or truncated file, or blocks that do not make up their tensor.
    """

    def __init__(self, path: Path) -> None:
        self._folder, self._tensors = path.parent, read_dcp_metadata(path)
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
