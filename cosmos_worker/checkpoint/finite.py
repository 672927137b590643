"""Weights that are not finite: found where they are read, so that nobody blames samples or learning rates for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError

SHOWN = 8
PIECE = 1 << 24
"""Values that are looked at together, as each needs a byte more."""


def count_not_finite(tensor: Tensor) -> int:
    """Values of a tensor that are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    return sum(
        piece.numel() - int(_is_finite(piece).sum()) for piece in tensor.reshape(-1).split(PIECE)
    )


def _is_finite(piece: Tensor) -> Tensor:
    return torch.isfinite(piece.float() if piece.dtype.itemsize == 1 else piece)


class Unfinished:
    """Tensors with values that are not finite, by name; on a GPU nothing waits for it until the end."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Tensor, Tensor]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """Look at a tensor; its largest value is not finite if any of its values is not."""
        if tensor.is_floating_point() and tensor.numel():
            self._found.append(
                (name, tensor.detach(), torch.stack(torch.aminmax(tensor.detach())).sum())
            )

    def check(self, where: Path | None) -> None:
        """Report what was found.

        Args:
            where: file or folder, for the message.

        Raises:
            CheckpointError: there is something.
        """
        wrong = {
            name: count_not_finite(t)
            for name, t, extent in self._found
            if not torch.isfinite(extent)
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
