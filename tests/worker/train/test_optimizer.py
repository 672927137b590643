"""Implementations of AdamW."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from cosmos_worker.config.training import OptimizerConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.train.optimizer import build_optimizer, with_torch_zero_grad
from cosmos_worker.train.shard_files import collect, copy_to_cpu, restore


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


class FusedAdam(torch.optim.Optimizer):
    """Stand-in of apex's FusedAdam, with signatures and states of revision 6424da3; the update is torch's."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        adam_w_mode: bool = True,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        set_grad_none: bool = True,
        capturable: bool = False,
        master_weights: bool = False,
    ) -> None:
        assert adam_w_mode
        defaults = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> None:
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for one in group["params"]:
                if one.grad is None:
                    continue
                state, (beta1, beta2), step = self.state[one], group["betas"], group["step"]
                if not state:
                    state.update(exp_avg=torch.zeros_like(one), exp_avg_sq=torch.zeros_like(one))
                state["exp_avg"].lerp_(one.grad, 1 - beta1)
                state["exp_avg_sq"].lerp_(one.grad.square(), 1 - beta2)
                root = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt() + group["eps"]
                update = state["exp_avg"] / (1 - beta1**step) / root
                one -= group["lr"] * (update + group["weight_decay"] * one)


def trained_with_apex(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    for i in range(steps):
        model(torch.full((1, 2), 1.0 + i)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    return model.weight.detach().clone()


def test_apex_computes_what_torch_does_and_continues_in_the_same_bits() -> None:
    def fresh(kind: type[torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Linear(2, 3, bias=False)
        nn.init.constant_(model.weight, 0.5)
        return model, kind(model.parameters(), lr=0.1, weight_decay=0.1)

    apex = with_torch_zero_grad(FusedAdam)
    first, second = fresh(apex), fresh(apex)
    trained_with_apex(*first, 2)
    saved = copy_to_cpu(collect(*first, with_frozen=True))
    expected = trained_with_apex(*first, 2)

    collect(*second, with_frozen=True)
    restore(*second, saved, with_frozen=True)

    assert torch.equal(trained_with_apex(*second, 2), expected)
    torchs = fresh(torch.optim.AdamW)
    trained_with_apex(*torchs, 2)
    torch.testing.assert_close(expected, trained_with_apex(*torchs, 2))


def test_apex_is_for_whole_weights_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("apex", "apex.optimizers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["apex.optimizers"].FusedAdam = FusedAdam
    model, config = nn.Linear(2, 2), OptimizerConfig(implementation="apex")

    with pytest.raises(ConfigError, match=r"'apex' needs CUDA; use 'torch' on a CPU"):
        build_optimizer(model, config)
    model.weight.placements = ("as a DTensor has",)
    with pytest.raises(ConfigError, match=r"'apex' updates whole weights.*parallel\.sharding=none"):
        build_optimizer(model, config)


def test_training_needs_no_torchao_that_was_not_asked_for() -> None:
    program = "import sys; sys.modules['torchao'] = None; import cosmos_worker.stages.train"

    subprocess.run([sys.executable, "-c", program], check=True)
