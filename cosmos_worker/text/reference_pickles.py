"""The reference's embedding files: a pickled list with one numpy float16 array (L, D), beside the caption.

A pickle is a program. It is read here with every name it asks for replaced by an inert stand-in of ours, so that
neither numpy nor anything else is called with what a file says; a file that names anything but the parts of a
numpy array is refused. Layouts (reference scripts get_t5_embeddings.py and get_t5_embeddings_from_bridge.py):
``annotation/<split>/<stem>.json`` with sibling ``.pickle``, or ``metas/<stem>.txt`` with ``t5_xxl/<stem>.pickle``.
"""

from __future__ import annotations

import io
import logging
import math
import pickle
import pickletools
import reprlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.config.values import MAX_SHOWN, shortened
from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import atomic_write

logger = logging.getLogger(__name__)

PROTOCOL = 4
"""Pickle protocol that the reference's Python 3.10 writes by default."""
MAX_BYTES = 1 << 26
"""Largest file that is read; 512 tokens of T5-11B take 1 MiB."""
REMEDY = "delete the file, or switch import_pickles off to compute the embedding"
BYTE_ORDERS = "<>=|"
MAX_DIMS = 8
REFUSED_OPCODES = frozenset(("SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET"))
"""Instructions of pickles that ask for the hash of what they hold, which can take longer than any training."""
Embedding = NDArray[np.float16]


class _ForbiddenGlobal(pickle.UnpicklingError):
    """The pickle names something that is not a part of a numpy array."""


class _DtypeStandIn:
    """Stands for a numpy.dtype: keeps its byte order, accepts only float16."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("f2", "<f2", ">f2", "float16"):
            raise pickle.UnpicklingError(f"an array of type {_brief(code)}, expected float16")
        self.order = ">" if code == ">f2" else "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if not isinstance(order, str) or len(order) != 1 or order not in BYTE_ORDERS:
            raise pickle.UnpicklingError(f"an array with byte order {_brief(order)}")
        if order in "<>":
            self.order = order


class _ArrayStandIn:
    """Stands for a numpy.ndarray: checks and keeps the array that its state describes."""

    def __init__(self) -> None:
        self.array: Embedding | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.array = _array_of(content, dtype, shape, "F" if is_fortran else "C")


def _brief(value: object) -> str:
    """A value of any size and depth in a few words: a tuple can hold itself so often that it has no end."""
    return reprlib.repr(value)[:MAX_SHOWN]


def _array_of(content: object, dtype: object, shape: object, order: str) -> Embedding:
    if not isinstance(dtype, _DtypeStandIn) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not plain float16 bytes")
    if not isinstance(shape, tuple) or not all(
        type(n) is int and 0 < n <= MAX_BYTES for n in shape
    ):
        raise pickle.UnpicklingError(f"an array of shape {_brief(shape)}")
    if len(shape) > MAX_DIMS or len(content) != 2 * math.prod(shape):
        raise pickle.UnpicklingError(f"{len(content)} bytes for an array of shape {_brief(shape)}")
    flat = np.frombuffer(bytes(content), np.dtype(f"{dtype.order}f2"))
    return np.ascontiguousarray(
        flat.reshape(shape, order="F" if order == "F" else "C"), dtype=np.float16
    )


def _reconstruct(*_: object) -> _ArrayStandIn:
    return _ArrayStandIn()


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> _ArrayStandIn:
    standin = _ArrayStandIn()
    standin.array = _array_of(content, dtype, shape, str(order))
    return standin


def _make_dtype(*arguments: object) -> _DtypeStandIn:
    return _DtypeStandIn(*arguments)


def _ndarray(*_: object) -> None:
    raise pickle.UnpicklingError("an array made by calling numpy.ndarray")


STAND_INS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy", "dtype"): _make_dtype,
    ("numpy", "ndarray"): _ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
"""(module, name) in a pickle, of numpy 1.x and 2.x → the stand-in for it."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        stand_in = STAND_INS.get((module, name))
        if stand_in is None:
            raise _ForbiddenGlobal(shortened(f"{module}.{name}"))
        return lambda *arguments: stand_in(*arguments)  # a fresh object: BUILD could set attributes


def _load(path: Path) -> object:
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise pickle.UnpicklingError(f"more than {MAX_BYTES} bytes, too large for an embedding")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # wrong escapes in the text of damaged files
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in REFUSED_OPCODES:
                raise pickle.UnpicklingError(f"an instruction {opcode.name}, which no array needs")
            if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
                raise pickle.UnpicklingError(f"memo index {argument}")  # takes that much memory
    return _ArrayUnpickler(io.BytesIO(content)).load()


def read_pickle(path: Path) -> Embedding:
    """Read a reference embedding file without running anything that it says.

    Returns:
        float16 (L, D).

    Raises:
        DataError: the file names a global that is not part of a numpy array, is truncated, or holds
            something other than a list with one finite float16 array of two dimensions.
    """
    try:
        value = _load(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _ForbiddenGlobal as error:
        raise DataError(
            f"{path}: refused, the pickle asks for {error}, only numpy arrays are read; {REMEDY}"
        ) from None
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        RecursionError,
        ImportError,
    ) as error:  # fmt: skip - errors of unpickling a damaged file
        raise DataError(
            f"{path}: damaged pickle ({error or type(error).__name__}); {REMEDY}"
        ) from None
    standin = value[0] if isinstance(value, list) and len(value) == 1 else None
    array = standin.array if isinstance(standin, _ArrayStandIn) else None
    if array is None or array.ndim != 2:
        got = type(value).__name__ if array is None else f"an array of shape {array.shape}"
        raise DataError(f"{path}: got {got}, expected a list with one float16 (L, D); {REMEDY}")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: the embedding is not finite; {REMEDY}")
    return array


def write_pickle(path: Path, embedding: Embedding) -> None:
    """Write one embedding (L, D) as the reference does, atomically."""
    with atomic_write(path) as stream:
        pickle.dump([np.ascontiguousarray(embedding, dtype=np.float16)], stream, protocol=PROTOCOL)


# --- a dataset's captions and where their pickles lie -----------------------------------------


@dataclass(frozen=True)
class CaptionFile:
    """A caption of a dataset and the pickle that belongs to it, relative to the dataset's root."""

    caption: str
    pickle: Path


def read_pickles(
    root: Path, files: Iterable[CaptionFile], captions: Collection[str], dim: int, max_length: int
) -> dict[str, Embedding]:
    """Embeddings of these captions as far as the dataset has pickles of them.

    Args:
        root: the dataset's root.
        files: the dataset's captions with the names of their pickles.
        captions: wanted; the first pickle of a caption counts.
        dim: width that the encoder of these pickles has.
        max_length: most tokens that an embedding may have.

    Raises:
        DataError: a refused or damaged pickle, another width, too many tokens.
    """
    wanted = set(captions)
    found: dict[str, Embedding] = {}
    for entry in files:
        path = root / entry.pickle
        if entry.caption not in wanted or entry.caption in found or not path.is_file():
            continue
        array = read_pickle(path)
        if array.shape[1] != dim or array.shape[0] > max_length:
            raise DataError(
                f"{path}: embedding {array.shape}, the encoder gives (L <= {max_length}, {dim}); {REMEDY}"
            )
        found[entry.caption] = array
    return found


def write_pickles(
    files: Iterable[CaptionFile],
    target: Path,
    captions: Collection[str],
    get: Callable[[str], Embedding],
) -> int:
    """Write the pickles of a dataset below ``target``, under the names of the dataset's layout.

    Args:
        files: the dataset's captions with the names of their pickles.
        target: root of the pickles; the dataset's root itself to put them where the reference does.
        captions: those of the index; files with another caption get no pickle.
        get: embedding of a caption.

    Returns:
        Number of files written.
    """
    wanted = set(captions)
    entries = [entry for entry in files if entry.caption in wanted]
    for entry in entries:
        write_pickle(target / entry.pickle, get(entry.caption))
    return len(entries)
