"""Faster kernels where an experiment asks for them: float8 products, attention by Transformer Engine."""

from __future__ import annotations

import torch

from cosmos_worker.config.training import AccelerationConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.train.float8 import use_float8
from cosmos_worker.train.transformer_engine import (
    use_engine_attention,
    use_engine_float8,
)


def accelerate(model: CosmosModel, config: AccelerationConfig, device: torch.device) -> None:
    """Change how layers compute, in place; weights keep names and forms. Before weights are spread.

    Raises:
        ConfigError: a library or device that an option needs is not there.
    """
    if config.linear == "float8":
        use_float8(model, device)
    elif config.linear == "transformer_engine_float8":
        use_engine_float8(model, device)
    if config.attention == "transformer_engine":
        use_engine_attention(model, device)
