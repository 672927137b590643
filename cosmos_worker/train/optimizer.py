"""AdamW with decoupled weight decay, in the implementation that is asked for; moments of 8 bits by torchao.

torchao takes seconds to import and slows down other imports, so this is imported where it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torchao import optim
from torchao.optim.subclass_8bit import OptimState8bit

from cosmos_worker.config.training import (
    BLOCK_SIZE,
    OptimizerConfig,
    has_8bit_states,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dtensor import (
    is_spread,
    local_part,
)
from cosmos_worker.runtime.imports import import_for

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""Names of the moments, and whether they have a sign."""
CODES, SCALES = "_codes", "_scales"

State = dict[str, Any]


class AdamW8bit(optim.AdamW8bit):
    """torchao's optimizer, whose state dict holds plain tensors that any number of processes can take up.

    A quantised moment of shape (rows, columns) is in it as ``NAME_codes`` (uint8, of the same shape) and
    ``NAME_scales`` (float32, (rows, columns / 256)), spread as the parameter is: what is loaded are the same bits.
    """

    def state_dict(self) -> dict[str, Any]:
        """As that of any optimizer; shares memory with the states in use."""
        packed = super().state_dict()
        states = dict(packed["state"])
        for index, parameter in self._numbered(packed):
            if index in states and has_8bit_states(parameter.shape):
                states[index] = _open(states[index], parameter)
        return {**packed, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
        states = dict(state_dict["state"])
        for index, parameter in self._numbered(state_dict):
            if index in states and has_8bit_states(parameter.shape):
                states[index] = self._close(states[index], parameter)
        super().load_state_dict({**state_dict, "state": states})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update: compiled on CUDA, as torchao would everywhere; a CPU needs no compiler."""
        on_cuda = any(
            parameter.is_cuda for group in self.param_groups for parameter in group["params"]
        )
        with nullcontext() if on_cuda else torch.compiler.set_stance("force_eager"):
            return super().step(closure)

    def _numbered(self, packed: dict[str, Any]) -> Iterator[tuple[Any, nn.Parameter]]:
        """Parameters with their numbers in a state dict."""
        for saved, own in zip(packed["param_groups"], self.param_groups, strict=True):
            yield from zip(saved["params"], own["params"], strict=True)

    def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
        """A moment of zeros; torchao's rule looks at the part of one process, ours at the whole."""
        own = local_part(p.detach())
        if not has_8bit_states(p.shape) or not own.numel():
            return torch.zeros_like(p)
        return _spread_as(
            p, OptimState8bit.zeros(own.shape, signed, BLOCK_SIZE, own.device, own.dtype), p.shape
        )

    def _close(self, state: State, parameter: nn.Parameter) -> State:
        closed = {"step": state["step"]}
        for name, signed in MOMENTS.items():
            moment = self._new_buffer(parameter, signed)
            quantised = local_part(moment)
            if isinstance(quantised, OptimState8bit):
                quantised.codes.copy_(local_part(state[name + CODES]))
                quantised.scale.copy_(local_part(state[name + SCALES]).flatten())
            closed[name] = moment
        return closed


@torch.no_grad()
def _open(state: State, parameter: nn.Parameter) -> State:
    """Codes and scales instead of quantised moments."""
    rows = parameter.shape[:-1]
    num_blocks = parameter.shape[-1] // BLOCK_SIZE
    opened = {"step": state["step"]}
    for name in MOMENTS:
        own = local_part(state[name])
        if isinstance(own, OptimState8bit):
            codes, scales = own.codes, own.scale.view(*own.codes.shape[:-1], num_blocks)
        else:  # this process has no row of it
            codes, scales = own.to(torch.uint8), own.new_zeros(*own.shape[:-1], num_blocks)
        opened[name + CODES] = _spread_as(parameter, codes, parameter.shape)
        opened[name + SCALES] = _spread_as(parameter, scales, (*rows, num_blocks))
    return opened


def _spread_as(parameter: Tensor, own: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The part of this process as a tensor of the whole shape, spread by rows as the parameter is."""
    if not is_spread(parameter):
        return own
    whole = torch.Size(shape)
    stride = torch.empty(whole, device="meta").stride()
    return DTensor.from_local(
        own,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=whole,
        stride=stride,
    )


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
    if any(is_spread(parameter) for parameter in trained):
        raise ConfigError(
            "optimizer.implementation: 'apex' updates whole weights, and these are shared by processes; use 'torch', "
            "or parallel.sharding=none"
        )
    if any(parameter.device.type != "cuda" for parameter in trained):
        raise ConfigError("optimizer.implementation: 'apex' needs CUDA; use 'torch' on a CPU")
    optimizer: torch.optim.Optimizer = as_torchs(FusedAdam)(trained, **options, adam_w_mode=True)
    return optimizer


def as_torchs(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Apex's optimizer with the ``zero_grad`` of PyTorch's, as PyTorch's own code calls it to restore a state."""

    class TorchsFusedAdam(kind):  # type: ignore[misc, valid-type]  # a base known at run time
        def zero_grad(self, set_to_none: bool = True) -> None:
            assert set_to_none
            super().zero_grad()  # takes no argument, and lets go of gradients by default

    return TorchsFusedAdam


def _torchao(trained: list[nn.Parameter], options: dict[str, Any]) -> torch.optim.Optimizer:
    module = import_for(
        "optimizer.state_bits: 8",
        "cosmos_worker.train.optimizer",
        "pip install 'torchao>=0.17', or use 32",
    )
    optimizer: torch.optim.Optimizer = module.AdamW8bit(trained, **options)
    return optimizer
