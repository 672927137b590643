"""Tensors by name that stay in their files until they are asked for, say their shapes and types, and are finite."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError

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


SHOWN = 8
PIECE = 1 << 24
"""Values that are looked at together, as each needs a byte more."""


def extent(tensor: Tensor) -> Tensor:
    """The sum of the smallest and the largest value, which is not finite if any value is not; fast.

    Args:
        tensor: floating point, with values.
    """
    known = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    return torch.stack(torch.aminmax(known.detach())).double().sum()


def count_not_finite(tensor: Tensor) -> int:
    """Values of a tensor that are NaN or infinite."""
    if not tensor.is_floating_point() or not tensor.numel() or torch.isfinite(extent(tensor)):
        return 0
    pieces = tensor.detach().reshape(-1).split(PIECE)
    return sum(piece.numel() - int(torch.isfinite(piece.float()).sum()) for piece in pieces)


class Unfinished:
    """Tensors with values that are not finite, by name; on a GPU nothing waits for it until the end."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Tensor, Tensor]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Look at a tensor; its largest value is not finite if any of its values is not."""
        if tensor.is_floating_point() and tensor.numel():
            self._found.append((name, tensor.detach(), extent(tensor)))

    def check(self, where: Path | None) -> None:
        """Report what was found.

        Args:
            where: file or folder, for the message.

        Raises:
            CheckpointError: there is something.
        """
        wrong = {
            name: count_not_finite(t) for name, t, found in self._found if not torch.isfinite(found)
        }
        refuse_not_finite({name: count for name, count in wrong.items() if count}, where)


def refuse_not_finite(counts: dict[str, int], where: Path | None) -> None:
    """Report weights that are not finite by name.

    Raises:
        CheckpointError: there are any.
    """
    if not counts:
        return
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:SHOWN])
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    raise CheckpointError(
        f"{where or 'fresh weights'}: {sum(counts.values())} values in {len(counts)} tensors are NaN or infinite: "
        f"{shown}{more}; a training that diverged leaves such weights: take an earlier checkpoint, or fetch it again"
    )
