"""AdamW with decoupled weight decay: of PyTorch, of apex, or with moments of 8 bits of torchao."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_worker.config.training import OptimizerConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dtensor import is_dtensor
from cosmos_worker.runtime.imports import import_for


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all trained parameters.

    Raises:
        ConfigError: its library is not installed, or does not support device or sharding.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.implementation == "apex":
        return _apex(trained, options)
    if config.state_bits == 8:
        return _torchao(trained, options)
    return torch.optim.AdamW(trained, **options, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next update; a tensor is filled, as the compiled update reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def can_skip_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """True if the device itself can leave out an update, so that Python need not know whether it happens."""
    return isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults["fused"])


def step_unless(optimizer: torch.optim.Optimizer, is_bad: Tensor) -> None:
    """Update the weights unless a value on the device is 1; otherwise weights, moments and counts stay as they are.

    Args:
        optimizer: one of :func:`can_skip_on_device`.
        is_bad: 0 or 1, float32 (), on the device of the weights.
    """
    # read by the fused AdamW of PyTorch, as its GradScaler sets it
    optimizer.found_inf = is_bad  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _apex(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise ConfigError(
            f"optimizer.implementation: 'apex' is not installed ({error}); use an image built with "
            "EXTENSIONS=compiled, or 'torch'"
        ) from None
    if any(is_dtensor(parameter) for parameter in trained):
        raise ConfigError(
            "optimizer.implementation: 'apex' updates whole weights, and these are sharded; use 'torch', "
            "or parallel.sharding=none"
        )
    if any(parameter.device.type != "cuda" for parameter in trained):
        raise ConfigError("optimizer.implementation: 'apex' needs CUDA; use 'torch' on a CPU")
    optimizer: torch.optim.Optimizer = with_torch_zero_grad(FusedAdam)(
        trained, **options, adam_w_mode=True
    )
    return optimizer


def with_torch_zero_grad(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Apex's optimizer with the ``zero_grad`` of PyTorch's, as PyTorch's own code calls it to restore a state."""

    class FusedAdamOfTorch(kind):  # type: ignore[misc, valid-type]  # a base known at run time
        def zero_grad(self, set_to_none: bool = True) -> None:
            assert set_to_none
            super().zero_grad()  # takes no argument, and sets gradients to None by default

    return FusedAdamOfTorch


def _torchao(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    module = import_for(
        "optimizer.state_bits: 8",
        "cosmos_worker.train.adamw_8bit",
        "pip install 'torchao>=0.17', or use 32",
    )
    optimizer: torch.optim.Optimizer = module.AdamW8bit(trained, **options)
    return optimizer
