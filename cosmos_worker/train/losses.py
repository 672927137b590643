"""Mean losses of the steps between two reports: of all of them, and of the steps of each bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("loss", "edm_loss", "mse")
"""In the order of ``StepResult.losses``."""


@dataclass(frozen=True)
class MeanLosses:
    """Means over steps: all of NAMES; and the loss of each bucket that had a step, in the order of the buckets."""

    values: dict[str, float]
    by_bucket: dict[str, float]


class LossSums:
    """Adds up the losses of steps. Every step is of one bucket on all processes, so that its mean is the bucket's too.

    Args:
        buckets: names; None is the only one of a dataset without buckets, which is not told by itself.
    """

    def __init__(self, buckets: Sequence[str | None]) -> None:
        self._buckets = buckets
        self._clear()

    def _clear(self) -> None:
        self._total, self._num_steps = torch.zeros(len(NAMES)), 0
        self._by_bucket: dict[str | None, list[float]] = {name: [] for name in self._buckets}

    def add(self, losses: Tensor, bucket: str | None) -> None:
        """Add a step.

        Args:
            losses: means over its samples on all processes, float32 (3,) on the CPU.
            bucket: of its samples.
        """
        self._total, self._num_steps = self._total + losses, self._num_steps + 1
        self._by_bucket[bucket].append(float(losses[0]))

    def take(self) -> MeanLosses:
        """The means since the last call, after at least one step."""
        means = (self._total / self._num_steps).tolist()
        found = {
            name: sum(losses) / len(losses)
            for name, losses in self._by_bucket.items()
            if name is not None and losses
        }
        self._clear()
        return MeanLosses(dict(zip(NAMES, means, strict=True)), found)
