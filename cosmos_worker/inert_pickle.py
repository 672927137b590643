"""Base of the readers of other people's pickles: nothing that they name is called, and none takes for ever.

A pickle can nest a tuple in itself so that its hash takes longer than any training, so keys of dicts and members of
sets are plain values here. What a name stands for is said by each reader. No torch here.
"""

from __future__ import annotations

import pickle
import reprlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

PLAIN = (str, int, float, bytes, type(None))


class InertUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc, unused-ignore] # has no public name
    """Reads a pickle in Python, opcode by opcode; ``find_class`` of a subclass gives a stand-in for each name."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def _load_setitem(self) -> None:
        check_keys([self.stack[-2]])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined, unused-ignore]

    def _load_setitems(self) -> None:
        check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined, unused-ignore]

    def _load_dict(self) -> None:
        check_keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined, unused-ignore]

    def _load_additems(self) -> None:
        check_keys(self.stack)
        pickle._Unpickler.load_additems(self)  # type: ignore[attr-defined, unused-ignore]

    def _load_frozenset(self) -> None:
        check_keys(self.stack)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined, unused-ignore]

    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.ADDITEMS[0]] = _load_additems
    dispatch[pickle.FROZENSET[0]] = _load_frozenset


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
