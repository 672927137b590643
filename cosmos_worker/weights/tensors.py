"""Tensors by name that are read when they are asked for; shapes and types without reading; checks for finite values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import counted

Prefer = Literal["average", "regular"]
"""The network that is taken of a file that has one and its average."""
NETWORK_PREFIX = "net."
"""Beginning of the names of the network's tensors."""
LOGVAR_PREFIX = "logvar."
"""Beginning of the names of the uncertainty head's tensors."""
SHOWN = 8
"""Names that a message shows."""
PIECE = 1 << 24
"""Values that are checked together, as each needs a byte more."""


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
    """A selection of tensors under new names.

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


class Overlaid(LazyMapping):
    """Tensors of several sources; of those with the same name that of the first source.

    Args:
        names: of the tensors, in their order.
        sources: each name is in one of them at least.
    """

    def __init__(self, names: Iterable[str], sources: Sequence[Mapping[str, Tensor]]) -> None:
        self._of = {name: next(one for one in sources if name in one) for name in names}

    def __getitem__(self, name: str) -> Tensor:
        return self._of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def describe(self, name: str) -> Described:
        """See :class:`LazyMapping`."""
        return describe(self._of[name], name)


def describe(tensors: Mapping[str, Tensor], name: str) -> Described:
    """Shape and type of a tensor; of a :class:`LazyMapping` without reading it."""
    if isinstance(tensors, LazyMapping):
        return tensors.describe(name)
    tensor = tensors[name]
    return Described(tuple(tensor.shape), tensor.dtype)


def extent(tensor: Tensor) -> Tensor:
    """The sum of the smallest and the largest value: it is not finite if any value is not, and takes one pass.

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


class FiniteCheck:
    """Finds tensors with values that are not finite; on a GPU nothing waits for the result until :meth:`check`."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Tensor, Tensor]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Add a tensor to those that are checked."""
        if tensor.is_floating_point() and tensor.numel():
            self._found.append((name, tensor.detach(), extent(tensor)))

    def check(self, where: Path | None) -> None:
        """Raise an error with the names of the tensors that have such values.

        Args:
            where: file or folder, for the message.

        Raises:
            CheckpointError: there are some.
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
    total = sum(counts.values())
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:SHOWN])
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    raise CheckpointError(
        f"{where or 'fresh weights'}: {counted(total, 'value')} in {counted(len(counts), 'tensor')} "
        f"{'is' if total == 1 else 'are'} NaN or infinite: "
        f"{shown}{more}; a training that diverged leaves such weights: take an earlier checkpoint, or fetch it again"
    )


def flat_parameter_error(where: Path, name: str) -> CheckpointError:
    """The error for a file with a flat parameter of FSDP, which holds one process's part of several tensors."""
    return CheckpointError(
        f"{where}: flat parameters of FSDP ({name}), which hold one process's part of several tensors; save the "
        "network whole: torch.distributed.checkpoint.state_dict.get_model_state_dict with "
        "StateDictOptions(full_state_dict=True), or StateDictType.FULL_STATE_DICT of FSDP"
    )
