"""AdamW with decoupled weight decay, in the implementation that is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cosmos_worker.errors import ConfigError
from cosmos_worker.options import OptimizerConfig
from cosmos_worker.train.optional import import_for


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
        return _apex(trained, options)
    if config.state_bits == 8:
        return _torchao(trained, options)
    return torch.optim.AdamW(trained, **options, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next update; where it is a tensor, the compiled update reads that one."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _apex(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
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


def _torchao(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    module = import_for(
        "optimizer.state_bits: 8",
        "cosmos_worker.train.adamw_8bit",
        "pip install 'torchao>=0.17', or use 32",
    )
    optimizer: torch.optim.Optimizer = module.AdamW8bit(trained, **options)
    return optimizer
