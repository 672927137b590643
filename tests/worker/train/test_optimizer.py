"""Implementations of AdamW."""

from __future__ import annotations

import pytest
import torch

from cosmos_worker.errors import ConfigError
from cosmos_worker.options import OptimizerConfig
from cosmos_worker.train.optimizer import build_optimizer


def test_only_what_is_trained_is_updated() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)

    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.5, weight_decay=0.25))

    (group,) = optimizer.param_groups
    assert group["params"] == list(model[1].parameters())
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)


def test_apex_that_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.implementation: 'apex' is not installed"):
        build_optimizer(torch.nn.Linear(2, 2), OptimizerConfig(implementation="apex"))
