"""Base of the readers of other people's pickles: nothing that they name is called, and none takes for ever.

A pickle can nest a tuple in itself so that its hash takes longer than any training, so keys of dicts and members of
sets are plain values here. What a name stands for is said by each reader. No torch here.
"""

from __future__ import annotations

import pickle
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

PLAIN = (str, int, float, bytes, type(None))


OPCODES: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
"""What Python's own reader does at each opcode; it has no public name."""


class InertUnpickler(pickle._Unpickler):
    """Reads a pickle in Python, opcode by opcode; ``find_class`` of a subclass gives a stand-in for each name."""

    stack: list[Any]

    def _load_key(self) -> None:
        check_keys([self.stack[-2]])
        OPCODES[pickle.SETITEM[0]](self)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {**OPCODES, pickle.SETITEM[0]: _load_key}


def _checked(opcode: int, step: int) -> Callable[[InertUnpickler], None]:
    """An opcode that takes keys, each so many places after the one before, from what is above the mark."""

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
    """Look at keys before anything asks for their hashes.

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
    """A value for a message, however large or nested it is."""
    return reprlib.repr(value)[:200]
