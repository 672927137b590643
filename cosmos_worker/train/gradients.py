"""Gradients of a step: their norm, clipping, and the check that they are finite.

Nothing here waits for a GPU but :meth:`Gradients.check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.errors import DataError
from cosmos_worker.model.dtensor import is_dtensor, local_part

SHOWN_PARAMETERS = 3


@dataclass(frozen=True)
class Gradients:
    """Norms of the gradients of one step before clipping, on the device.

    Attributes:
        norm: of all gradients of all processes, float32 ().
        names: of the parameters that have a gradient.
        own_norms: of the gradient of each, or of this process's shard of it, float32 (len(names),).
        must_be_finite: False with ``compat.zeroed_gradients``.
        describe: names step and samples, for errors.
    """

    norm: Tensor
    names: tuple[str, ...]
    own_norms: Tensor
    must_be_finite: bool
    describe: Callable[[], str]

    @property
    def is_bad(self) -> Tensor:
        """1 if the norm is NaN or infinite, else 0; float32 (), on the device."""
        return (~torch.isfinite(self.norm)).float()

    def check(self) -> None:
        """Check that the gradients are finite, which waits for the device.

        Raises:
            DataError: NaN or infinite gradients, unless compat.zeroed_gradients; names parameters and samples.
        """
        if not self.must_be_finite or bool(torch.isfinite(self.norm)):
            return
        finite = torch.isfinite(self.own_norms).tolist()
        bad = [name for name, is_finite in zip(self.names, finite, strict=True) if not is_finite]
        raise DataError(
            f"{self.describe()}: NaN or infinite gradient in {len(bad)} parameters "
            f"({', '.join(bad[:SHOWN_PARAMETERS])}, ...); look at these samples, lower optimizer.learning_rate, "
            "or set compat.zeroed_gradients=true; the last checkpoint is intact"
        )


def clip_gradients(
    model: nn.Module, experiment: Experiment, describe: Callable[[], str]
) -> Gradients:
    """Clip the gradients to the global norm; with compat.zeroed_gradients, values that are not finite become 0 before.

    Args:
        model: whose parameters have gradients.
        experiment: options of clipping.
        describe: names step and samples, for errors.
    """
    named = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    zeroed = experiment.compat.zeroed_gradients
    if zeroed:
        for grad in named.values():
            local_part(grad).nan_to_num_(0.0, 0.0, 0.0)
    # as torch.nn.utils.get_total_norm, which keeps no norm of each
    norms = torch.stack(list(torch._foreach_norm(list(named.values()), 2.0)))
    norm = torch.linalg.vector_norm(norms, 2.0)
    if is_dtensor(norm):
        norm = norm.full_tensor()
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), experiment.optimizer.clip_norm, norm)
    return Gradients(norm, tuple(named), local_part(norms), not zeroed, describe)
