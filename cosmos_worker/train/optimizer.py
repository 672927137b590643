"""AdamW with decoupled weight decay, in the implementation that is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cosmos_worker.errors import ConfigError
from cosmos_worker.options import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters that are trained.

    Raises:
        ConfigError: its library is not installed, or cannot do what is asked for.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.implementation == "apex":
        return _apex(trained, options, config)
    if config.state_bits == 8:
        return _eight_bit(trained, options)
    return torch.optim.AdamW(trained, **options, fused=True)


def _eight_bit(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"optimizer.state_bits: 8 needs torchao ({error}); install it, or set optimizer.state_bits=32"
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(trained, **options)
    return optimizer


def _apex(
    trained: list[nn.Parameter], options: dict[str, Any], config: OptimizerConfig
) -> torch.optim.Optimizer:
    if config.state_bits != 32:
        raise ConfigError(
            f"optimizer.implementation: 'apex' has no states of {config.state_bits} bits; use 'torch'"
        )
    try:
        from apex.optimizers import FusedAdam
    except ImportError as error:
        raise ConfigError(
            f"optimizer.implementation: 'apex' is not installed ({error}); use the image with CUDA, or 'torch'"
        ) from None
    if any(parameter.device.type != "cuda" for parameter in trained):
        raise ConfigError("optimizer.implementation: 'apex' needs CUDA; use 'torch' on a CPU")
    optimizer: torch.optim.Optimizer = FusedAdam(trained, **options, adam_w_mode=True)
    return optimizer
