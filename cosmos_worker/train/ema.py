"""Power-function exponential moving average of the weights (Karras et al. 2024, EDM2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from cosmos_worker.model.dtensor import (
    local_part,
    reshard,
)


def ema_exponent(rate: float) -> float:
    """Exponent gamma of a profile of relative width ``rate``.

    Largest real root of x³ + 7x² + (16 - rate⁻²) x + (12 - rate⁻²). Source: EDM2, equation 123.
    """
    inverse = rate**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(roots[np.isreal(roots)].real.max())


def ema_beta(step: int, rate: float) -> float:
    """Weight of the old average at update number ``step``, counted from 0; 0 at the first."""
    return 0.0 if step == 0 else (1 - 1 / (step + 1)) ** (ema_exponent(rate) + 1)


class PowerEma:
    """Average of all trained parameters in float32, sharded as they are.

    Args:
        model: parameters are averaged under their names; buffers are not.
        rate: relative width of the averaging profile.
        source_dtype: dtype that parameters are rounded to before they are averaged; bfloat16 as the reference.
    """

    def __init__(self, model: nn.Module, rate: float, source_dtype: torch.dtype) -> None:
        self.rate = rate
        self.source_dtype = source_dtype
        self._sources = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {
            name: value.detach().float().clone() for name, value in self._sources.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer update number ``step``, counted from 0."""
        weight = 1 - ema_beta(step, self.rate)
        sources = [
            local_part(value.detach()).to(self.source_dtype).to(torch.float32)
            for value in self._sources.values()
        ]
        averages = [local_part(value) for value in self.average.values()]
        torch._foreach_lerp_(averages, sources, weight)

    @contextmanager
    def in_use(self, model: nn.Module) -> Iterator[None]:
        """Inside, the network has the averages as its weights; afterwards its own weights again, bit-equal.

        Args:
            model: the averaged network; takes memory for one more copy of its largest parameter only.
        """
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        reshard(model)
        for name, source in self._sources.items():
            own, average = local_part(source.detach()), local_part(self.average[name])
            assert own.dtype == average.dtype  # the exchange must not round
            weights = own.clone()
            own.copy_(average)
            average.copy_(weights)
