"""Read weight files of torch.save: flat, in the wrappers of trainers, or with Transformer Engine's extra states.

The file is mapped, and nothing in it is run: see ``torch_pickle``. Its structure is checked when it is opened; the
checksum of a record is compared when its tensor is first read, unless the file is known by its digest.
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.tensors import (
    Described,
    LazyMapping,
    Prefer,
    flat_parameter_error,
)
from cosmos_worker.weights.torch_pickle import (
    Inert,
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

logger = logging.getLogger(__name__)

NETWORK_KEYS = ("state_dict", "model_state_dict", "model", "module", "network", "net")
"""Entries of a file that hold its network: of Lightning, PyTorch's tutorials, NVIDIA, DeepSpeed and others."""
AVERAGE_KEYS = ("ema", "model_ema", "ema_state_dict", "ema_model", "state_dict_ema")
MAX_DEPTH = 4
"""Wrappers in each other that are opened."""
EXTRA_STATE_SUFFIX = "_extra_state"
"""Entries of Transformer Engine, which hold scales of FP8 and are of no use to another network."""
REMEDY = "fetch or publish it again"
PICKLE = "data.pkl"
MAX_NUMBER = 2**63 - 1
"""Of values of a tensor, which PyTorch counts in 64 bits."""


def read_torch_file(path: Path, is_known: bool = False, prefer: Prefer = "average") -> TorchTensors:
    """Tensors of a file under the names in it, without extra states.

    Args:
        path: written by torch.save.
        is_known: True if its content is known to be right, such as by a recorded digest.
        prefer: what is taken of a file that has the network and its average apart.

    Raises:
        CheckpointError: truncated, damaged or unsafe file, or something else than tensors by name.
    """
    records = read_records(path, REMEDY)
    if any(name.startswith("code/") for name in records):
        raise CheckpointError(
            f"{path}: a TorchScript program, not weights; save the state_dict() of the network by torch.save"
        )
    content = read_content(path, records)
    return TorchTensors(path, _tensors_of(unwrap(content, path, prefer), path), records, is_known)


def read_content(path: Path, records: Mapping[str, Record], stand_in: type[Inert] = Inert) -> Any:  # noqa: ANN401 - what the file holds
    """The objects in the pickle of a file, see :func:`read_pickle`.

    Raises:
        CheckpointError: no pickle, a damaged one, or a file of a machine with another byte order.
    """
    record, order = records.get(PICKLE), records.get("byteorder")
    problem = None
    if record is None:
        problem = f"it has no record {PICKLE}"
    elif order is not None and _read(path, order, records) != b"little":
        problem = "it was written on a machine with another byte order"
    else:
        try:
            return read_pickle(_read(path, record, records), stand_in)
        except pickle.UnpicklingError as error:
            problem = " ".join(str(error).split())[:200]
    raise CheckpointError(
        f"{path}: cannot be read as a file of torch tensors ({problem}); {REMEDY}"
    )


def _read(path: Path, record: Record, records: Mapping[str, Record]) -> bytes:
    """The bytes of a record, with the right checksum."""
    if has_checksums(records):
        check_crc(path, record, REMEDY)
    with path.open("rb") as stream:
        stream.seek(record.start)
        return stream.read(record.size)


def _tensors_of(state: object, path: Path) -> dict[str, TensorRef]:
    """The tensors of a flat dict; names of texts and numbers beside them are logged."""
    entries = state.items() if isinstance(state, Mapping) else ()
    kept = {name: value for name, value in entries if not str(name).endswith(EXTRA_STATE_SUFFIX)}
    for name, value in kept.items():
        if isinstance(value, Inert) and value.name != "bytes":
            raise CheckpointError(
                f"{path}: cannot be read as a file of torch tensors ({name} is {_describe(value)}); save "
                "the state_dict() of the network, whole, as plain tensors"
            )
    tensors = {name: value for name, value in kept.items() if isinstance(value, TensorRef)}
    others = [str(name) for name in kept if name not in tensors]
    held = f"an object of {state.name}" if isinstance(state, Inert) else type(state).__name__
    if not tensors or not all(isinstance(name, str) for name in tensors):
        wrapper = unknown_wrapper(state) if isinstance(state, Mapping) else None
        raise CheckpointError(
            f"{path}: holds {held}, not a flat dict of tensors; {wrapper or 'expected keys net.* and logvar.*'}"
        )
    if others:
        logger.info("%s: entries that are no tensors are ignored: %s", path, ", ".join(others[:8]))
    return tensors


def _describe(value: Inert) -> str:
    return value.name if value.name.startswith("a ") else f"made by {value.name}, which is not run"


# --- tensors in the records of a file ---------------------------------------------------------


class TorchTensors(LazyMapping):
    """Tensors of a file, each mapped when it is asked for.

    Args:
        path: the file.
        refs: the tensors by name, with their places in its records.
        records: of the file.
        is_known: True if the content of the file is known to be right, so that no checksum is compared.
    """

    def __init__(
        self,
        path: Path,
        refs: Mapping[str, TensorRef],
        records: Mapping[str, Record],
        is_known: bool,
    ) -> None:
        self._path, self._refs, self._records = path, dict(refs), records
        self._unchecked = set() if is_known or not has_checksums(records) else set(records)
        self._mapped: Tensor | None = None
        for name, ref in self._refs.items():
            self._check(name, ref)

    def _check(self, name: str, ref: TensorRef) -> None:
        """Make sure that a tensor lies in its storage, and that the storage fills its record."""
        storage = ref.storage
        record = self._records.get(f"data/{storage.key}")
        expected = storage.numel * storage.dtype.itemsize
        problem = None
        if record is None:
            problem = f"there is no record data/{storage.key}"
        elif record.size != expected:
            problem = f"record {record.name!r} has {record.size} bytes instead of {expected}"
        else:
            problem = _misfit(ref, record)
        if problem is not None:
            raise CheckpointError(
                f"{self._path}: cannot be read as a file of torch tensors ({name}: {problem}); {REMEDY}"
            )

    def __getitem__(self, name: str) -> Tensor:
        ref = self._refs[name]
        record = self._records[f"data/{ref.storage.key}"]
        if record.name in self._unchecked:
            check_crc(self._path, record, REMEDY)
            self._unchecked.discard(record.name)
        if record.size == 0 or 0 in ref.shape:
            return torch.empty(ref.shape, dtype=ref.dtype)
        if self._mapped is None:
            size = self._path.stat().st_size
            self._mapped = torch.from_file(
                str(self._path), shared=False, size=size, dtype=torch.uint8
            )
        content = self._mapped[record.start : record.start + record.size]
        if record.start % ref.dtype.itemsize:  # PyTorch aligns records, other tools do not
            content = content.clone()
        return content.view(ref.dtype).as_strided(
            ref.shape, ref.stride, content.storage_offset() // ref.dtype.itemsize + ref.offset
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        ref = self._refs[name]
        return Described(ref.shape, ref.dtype)


def _misfit(ref: TensorRef, record: Record) -> str | None:
    """The reason why a tensor cannot be values of its record, each once; None if it can."""
    if max(math.prod(max(n, 1) for n in ref.shape), *ref.stride, ref.offset, 1) > MAX_NUMBER:
        return f"its shape {shown(ref.shape)} and strides {shown(ref.stride)} are beyond 64 bits"
    if 0 in ref.shape:
        return None
    itemsize = ref.dtype.itemsize
    if record.size % itemsize:
        return f"record {record.name!r} has {record.size} bytes, no multiple of the {itemsize} of a value"
    steps = zip(ref.shape, ref.stride, strict=True)
    end = ref.offset + sum((n - 1) * step for n, step in steps) + 1
    if end * itemsize > record.size:
        return f"it ends after its record {record.name!r}"
    size = math.prod(ref.shape) * itemsize
    if size > record.size:  # strides of 0: a small file would become any number of bytes
        return (
            f"its shape {shown(ref.shape)} takes {size} bytes, its record {record.name!r} has {record.size}; an "
            "expanded tensor is saved whole with .contiguous()"
        )
    return None


# --- wrappers of trainers ---------------------------------------------------------------------


def unwrap(content: object, path: Path, prefer: Prefer = "average") -> object:
    """Take the tensors out of the wrappers of trainers, averaged where there is an average; return others as they are.

    The average of NVIDIA's trainer has what was trained only, with dashes for dots, as names of buffers must not hold
    dots.

    Args:
        content: of the file.
        path: for messages.
        prefer: the one that is taken where there are both.

    Raises:
        CheckpointError: a file of DeepSpeed or FSDP that holds one process's part.
    """
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            return content
        _refuse_parts(content, path)
        key = next((k for k in NETWORK_KEYS if _has_tensors(content.get(k))), None)
        average_key = next((k for k in AVERAGE_KEYS if _has_tensors(content.get(k))), None)
        if key is None and average_key is None:
            return content
        if key is not None and prefer == "regular":
            average_key = None
        left = sorted(str(k) for k in content if k not in (key, average_key))
        _log_left_out(path, key, average_key, left)
        model = {} if key is None else content[key]
        average = {} if average_key is None else content[average_key]
        if _is_flat(average):
            averaged = {str(name).replace("-", "."): value for name, value in average.items()}
            content = {**model, **_like(model, averaged)}
        else:
            content = model or average
    return content


def _like(model: Mapping[object, object], averaged: dict[str, object]) -> dict[str, object]:
    """The average under the names of the model, which may have a prefix that those of the average lack."""
    if not model or averaged.keys() & model.keys():
        return averaged
    for prefix in ("net.", "module.", "model."):
        if all(f"{prefix}{name}" in model for name in averaged):
            return {f"{prefix}{name}": value for name, value in averaged.items()}
    return averaged


def _has_tensors(value: object) -> bool:
    """True if it is a dict with tensors in it, or in a dict in it."""
    if not isinstance(value, Mapping) or isinstance(value, Inert):
        return False
    return any(
        isinstance(one, TensorRef) or (isinstance(one, Mapping) and _is_flat(one))
        for one in value.values()
    )


def _is_flat(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(one, TensorRef) for one in value.values())


def _log_left_out(path: Path, key: str | None, average_key: str | None, left: list[str]) -> None:
    """Log the part of the file that is taken, and the others."""
    if average_key is not None and key is not None:
        logger.info(
            "%s: holds %r and its average %r; what is averaged is taken (export --network regular takes the other)",
            path, key, average_key,
        )  # fmt: skip
    if left and left != ["trained_data_record"]:
        logger.info(
            "%s: the weights are in %r; ignored are %s",
            path,
            key or average_key,
            ", ".join(left[:8]),
        )


def unknown_wrapper(content: Mapping[object, object]) -> str | None:
    """Advice for a dict whose tensors are in entries of unknown names; None for any other dict."""
    keys = [str(key) for key, value in content.items() if _has_tensors(value)]
    if not keys:
        return None
    shown = ", ".join(repr(key) for key in keys[:4])
    return (
        f"its tensors are in the entries {shown}; write a file with the network's alone: torch.save(torch.load(FILE, "
        f"map_location='cpu')[{keys[0]!r}], NEW_FILE)"
    )


def _refuse_parts(content: Mapping[object, object], path: Path) -> None:
    """Refuse files that hold one process's part of a network.

    Raises:
        CheckpointError: with the command that joins the parts.
    """
    if "param_shapes" in content or "ds_version" in content or "fp32_flat_groups" in content:
        module = content.get("module")
        if not _has_tensors(module):
            raise CheckpointError(
                f"{path}: a file of DeepSpeed without the weights, which ZeRO has spread over the files of all "
                f"processes; join them by its own script, in {path.parent.parent}: python zero_to_fp32.py . FOLDER "
                "--safe_serialization"
            )
    flat = next((str(k) for k in content if "flat_param" in str(k)), None)
    if flat is not None:
        raise flat_parameter_error(path, flat)
