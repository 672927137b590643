"""Tensors by name that stay in their files until they are asked for, and say their shapes and types before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Prefer = Literal["average", "regular"]
"""Which network is taken of a file that has one and its average."""


class Described(NamedTuple):
    """Shape and type of a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class LazyMapping(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for."""

    @abstractmethod
    def describe(self, name: str) -> Described:
        """Shape and type of a tensor, without its values."""


class Renamed(LazyMapping):
    """Some of other tensors under other names.

    Args:
        source: the tensors.
        names: new name → name in the source.
    """

    def __init__(self, source: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        self._source, self._names = source, dict(names)

    def __getitem__(self, name: str) -> Tensor:
        return self._source[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        return describe(self._source, self._names[name])


def describe(tensors: Mapping[str, Tensor], name: str) -> Described:
    """Shape and type of one of some tensors, which is not read where it is lazy."""
    if isinstance(tensors, LazyMapping):
        return tensors.describe(name)
    tensor = tensors[name]
    return Described(tuple(tensor.shape), tensor.dtype)
