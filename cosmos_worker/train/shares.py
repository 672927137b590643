"""Which process writes which tensors of a checkpoint, where several processes have the same ones.

torch.distributed.checkpoint would decide this too, but only among copies in host memory that all of them had made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from torch import Tensor

from cosmos_worker.model.dtensor import is_spread

OPTIMIZER, STATE = "optimizer", "state"
Tensors = dict[str, Any]


def own_share(tensors: Tensors, rank: int, world_size: int) -> Tensors:
    """What this process is to write; the processes together write everything once.

    Weights and averages are dealt one by one, the optimizer's states of a parameter together, each to the process that
    has the least so far. What is not of tensors stays everywhere.

    Args:
        tensors: parts by name, of the optimizer its ``state``; the same names in the same order in all processes.
        rank: of this process.
        world_size: all processes.
    """
    dealer = _Dealer(rank, world_size)
    own = dealer.deal_each({name: part for name, part in tensors.items() if name != OPTIMIZER})
    if OPTIMIZER in tensors:
        rest = dict(tensors[OPTIMIZER])
        own[OPTIMIZER] = {**dealer.deal_each({STATE: rest.pop(STATE)}), **rest}
    return own


class _Dealer:
    def __init__(self, rank: int, world_size: int) -> None:
        self._place = (world_size, rank)
        self._dealt: dict[int, list[int]] = {}
        """Bytes of each holder, by number of holders."""

    def deal_each(self, parts: Mapping[str, Mapping[str, Any]]) -> Tensors:
        """The parts with what falls to this process; one of which nothing is left is left out, as it would be saved."""
        dealt = {name: self.deal(part) for name, part in parts.items()}
        return {name: own for name, own in dealt.items() if own or not parts[name]}

    def deal(self, entries: Mapping[str, Any]) -> Tensors:
        """The entries that fall to this process."""
        return {name: entry for name, entry in entries.items() if self._is_own(entry)}

    def _is_own(self, entry: object) -> bool:
        tensors = list(_tensors_in(entry))
        holders, own = self._holders(tensors)
        dealt = self._dealt.setdefault(holders, [0] * holders)
        chosen = dealt.index(min(dealt))
        dealt[chosen] += sum(tensor.nbytes for tensor in tensors)
        return chosen == own

    def _holders(self, tensors: list[Tensor]) -> tuple[int, int]:
        """How many processes have the same part, and which of them this one is; tensors that are spread decide."""
        for tensor in tensors:
            if is_spread(tensor):
                mesh = tensor.device_mesh
                copies = [i for i, one in enumerate(tensor.placements) if one.is_replicate()]
                own = 0
                for i in copies:
                    own = own * mesh.size(i) + mesh.get_local_rank(i)
                return prod(mesh.size(i) for i in copies), own
        return self._place


def _tensors_in(entry: object) -> Iterator[Tensor]:
    if isinstance(entry, Tensor):
        yield entry
    elif isinstance(entry, Mapping):
        for value in entry.values():
            yield from _tensors_in(value)
