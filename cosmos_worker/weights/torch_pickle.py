"""Read pickles of torch.save without calling anything that they name.

A pickle is a program. Every name in it is replaced by an inert stand-in: those of tensors become descriptions of
tensors, which say where in which record their values lie, and all others become objects that do nothing, such as the
configuration that a trainer saves beside its weights. A pickle can nest a tuple in itself so that its hash takes longer
than any training, so keys of dicts and members of sets must be plain values.
"""

from __future__ import annotations

import io
import pickle
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch

PLAIN = (str, int, float, bytes, type(None))
"""Types of plain values, which may be keys."""
MAX_PICKLE_BYTES = 1 << 27
"""Far above the descriptions of any network and its optimizer."""
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
PLAIN_CLASSES = (
    "torch._tensor.Tensor",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
)
OPCODES: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
"""Opcode → the method of Python's own reader; the reader has no public name."""


class InertUnpickler(pickle._Unpickler):
    """Reads a pickle in Python, opcode by opcode; ``find_class`` of a subclass gives a stand-in for each name."""

    stack: list[Any]

    def _load_key(self) -> None:
        check_keys([self.stack[-2]])
        OPCODES[pickle.SETITEM[0]](self)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**OPCODES, pickle.SETITEM[0]: _load_key}


def _checked(opcode: int, step: int) -> Callable[[InertUnpickler], None]:
    """The method for an opcode that takes keys from the stack above the mark: every ``step``-th value is checked."""

    def load(reader: InertUnpickler) -> None:
        check_keys(reader.stack[::step])
        OPCODES[opcode](reader)

    return load


for _opcode, _step in (
    (pickle.SETITEMS, 2),
    (pickle.DICT, 2),
    (pickle.ADDITEMS, 1),
    (pickle.FROZENSET, 1),
):
    InertUnpickler.dispatch[_opcode[0]] = _checked(_opcode[0], _step)


def check_keys(keys: Iterable[object]) -> None:
    """Refuse keys whose hash could take forever, before anything asks for their hashes.

    Raises:
        pickle.UnpicklingError: one is neither a plain value, nor a tuple of some, nor an object known by itself.
    """
    for key in keys:
        is_plain = isinstance(key, PLAIN) or type(key).__hash__ is object.__hash__
        if not is_plain and not (
            isinstance(key, tuple) and all(isinstance(one, PLAIN) for one in key)
        ):
            raise pickle.UnpicklingError(f"a key of the type {type(key).__name__}")


def shown(value: object) -> str:
    """A value of any size and depth in at most 200 characters, for a message."""
    return reprlib.repr(value)[:200]


class StorageRef(NamedTuple):
    """Values in a record of the file."""

    dtype: torch.dtype
    key: str
    """Of the record ``data/<key>``."""
    numel: int


class TensorRef(NamedTuple):
    """A tensor whose values are still in the file."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    """Elements before the first one, in the storage."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """Stands for an object of an unknown class, or for the result of a function; it does nothing."""

    name = "an object"

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> Inert:
        """Calling an instance."""
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Of a list."""

    def extend(self, values: object) -> None:
        """Of a list."""

    def add(self, value: object) -> None:
        """Of a set."""


def read_pickle(content: bytes, stand_in: type[Inert] = Inert) -> Any:  # noqa: ANN401 - what the file holds
    """Read a pickle as dicts, lists, numbers, texts, :class:`TensorRef` and :class:`Inert`.

    Args:
        content: the pickle.
        stand_in: class of what stands for objects of unknown classes.

    Raises:
        pickle.UnpicklingError: damaged, or larger than anything that torch.save writes for a network.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise pickle.UnpicklingError(f"a pickle of {len(content)} bytes")
    try:
        return _Unpickler(content, stand_in).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None


class _Unpickler(InertUnpickler):
    def __init__(self, content: bytes, stand_in: type[Inert]) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._stand_in = stand_in

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class or a function
        """The stand-in for a name; a new one each time, as a pickle can set its attributes."""
        found = _known(module, name)
        if found is not None:
            return found
        return type("Inert", (self._stand_in,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> StorageRef:  # noqa: ANN401 - what the file says
        """The storage of tensors: ("storage", type, key, device, number of elements)."""
        kind, storage, key, _, numel = pid[:5]
        if (
            kind != "storage"
            or not isinstance(storage, _StorageType)
            or not isinstance(key, str)
            or type(numel) is not int
        ):
            raise pickle.UnpicklingError(f"a storage {shown(pid)}")
        return StorageRef(storage.dtype, key, numel)


class _Entries(dict[Any, Any]):
    """Stands for an ordered dict, without the attributes that a network's state_dict() gives it."""

    def __init__(self, entries: Any = ()) -> None:  # noqa: ANN401 - what the file says
        pairs = list(entries.items() if isinstance(entries, dict) else entries)
        check_keys(key for key, _ in pairs)
        super().__init__(pairs)

    def __setstate__(self, state: object) -> None:
        pass


class _StorageType:
    """Stands for a class of storages."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _known(module: str, name: str) -> Any:  # noqa: ANN401 - a class or a function
    """The stand-in for a part of tensors or a plain container; None for other names."""
    if (module, name) == ("collections", "OrderedDict"):
        return lambda *entries: _Entries(*entries[:1])
    if (module, name) == ("collections", "defaultdict"):
        return lambda *_: _Entries()
    if (module, name) == ("torch", "Size"):
        return lambda sizes=(): tuple(sizes)
    if (module, name) in (("_io", "BytesIO"), ("io", "BytesIO")):
        return type("Inert", (Inert,), {"name": "bytes"})
    if module in ("torch", "torch.storage") and name in STORAGES:
        return _StorageType(STORAGES[name])
    if module == "torch" and name.endswith("Storage"):  # of quantised tensors
        return _StorageType(torch.uint8)
    if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
        return dtype
    rebuild = _REBUILDS.get(name) if module in ("torch._utils", "torch._tensor") else None
    return None if rebuild is None else lambda *arguments: rebuild(*arguments)


def _tensor(
    storage: object, offset: object, shape: object, stride: object, *_: object
) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError(f"a tensor of {type(storage).__name__}")
    return TensorRef(storage, storage.dtype, *_geometry(offset, shape, stride))


def _tensor_with_dtype(
    storage: object, offset: object, shape: object, stride: object, _: object, __: object, dtype: object, *___: object
) -> TensorRef:  # fmt: skip
    if not isinstance(storage, StorageRef) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError(f"a tensor of {type(storage).__name__} and {shown(dtype)}")
    return TensorRef(storage, dtype, *_geometry(offset, shape, stride))


def _geometry(
    offset: object, shape: object, stride: object
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    if type(offset) is not int or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError(f"a tensor of shape {shown(shape)}")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError(
            f"a tensor of shape {shown(shape)} and strides {shown(stride)}"
        )
    return offset, shape, stride


def _parameter(tensor: object, *_: object) -> object:
    return tensor


def _from_type(rebuild: object, kind: object, arguments: object, *_: object) -> object:
    """A tensor with attributes; of a subclass, whose values may mean something else, a stand-in."""
    if not callable(rebuild) or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a tensor of an unknown class")
    name = getattr(kind, "name", None)
    if name not in PLAIN_CLASSES:
        return _other_tensor(f"a tensor of the class {name}")()
    return rebuild(*arguments)


def _other_tensor(what: str) -> Callable[..., Inert]:
    return type("Inert", (Inert,), {"name": what})


_REBUILDS: dict[str, Callable[..., object]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_with_dtype,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "_rebuild_from_type_v2": _from_type,
    "_rebuild_wrapper_subclass": _other_tensor("a tensor of a subclass, such as a DTensor"),
    "_rebuild_qtensor": _other_tensor("a quantised tensor"),
    "_rebuild_sparse_tensor": _other_tensor("a sparse tensor"),
    "_rebuild_nested_tensor": _other_tensor("a nested tensor"),
    "_rebuild_meta_tensor_no_storage": _other_tensor(
        "a tensor without values (of the meta device)"
    ),
}
"""Function with which PyTorch rebuilds a tensor → its stand-in. Source: torch/_utils.py, torch/_tensor.py."""
