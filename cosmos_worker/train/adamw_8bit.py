"""AdamW with moments of 8 bits, by torchao, whose states any number of processes can load.

torchao need not be installed and takes seconds to import, so ``optimizer.py`` imports this only if it is asked for.
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

from cosmos_worker.config.training import BLOCK_SIZE, has_8bit_states
from cosmos_worker.model.dtensor import is_dtensor, local_part

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""True for the moments that have a sign, by name."""
CODES, SCALES = "_codes", "_scales"

State = dict[str, Any]


class AdamW8bit(optim.AdamW8bit):
    """torchao's optimizer with a state dict of plain tensors, which any number of processes can load.

    The state dict has a quantised moment of shape (rows, columns) as ``NAME_codes`` (uint8, of the same shape) and
    ``NAME_scales`` (float32, (rows, columns / 256)), sharded as the parameter is; loading restores the same bits.
    """

    def state_dict(self) -> dict[str, Any]:
        """State dict as of any optimizer; shares memory with the states in use."""
        packed = super().state_dict()
        states = dict(packed["state"])
        for index, parameter in self._numbered(packed):
            if index in states and has_8bit_states(parameter.shape):
                states[index] = _codes_and_scales(states[index], parameter)
        return {**packed, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states of a :meth:`state_dict`."""
        states = dict(state_dict["state"])
        for index, parameter in self._numbered(state_dict):
            if index in states and has_8bit_states(parameter.shape):
                states[index] = self._quantised(states[index], parameter)
        super().load_state_dict({**state_dict, "state": states})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update: compiled on CUDA, as torchao does everywhere; eager on a CPU, so that no compiler is needed."""
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
        """A moment of zeros; quantised by the shape of the whole parameter, where torchao takes that of the shard."""
        own = local_part(p.detach())
        if not has_8bit_states(p.shape) or not own.numel():
            return torch.zeros_like(p)
        return _sharded_as(
            p, OptimState8bit.zeros(own.shape, signed, BLOCK_SIZE, own.device, own.dtype), p.shape
        )

    def _quantised(self, state: State, parameter: nn.Parameter) -> State:
        quantised_state = {"step": state["step"]}
        for name, signed in MOMENTS.items():
            moment = self._new_buffer(parameter, signed)
            quantised = local_part(moment)
            if isinstance(quantised, OptimState8bit):
                quantised.codes.copy_(local_part(state[name + CODES]))
                quantised.scale.copy_(local_part(state[name + SCALES]).flatten())
            quantised_state[name] = moment
        return quantised_state


@torch.no_grad()
def _codes_and_scales(state: State, parameter: nn.Parameter) -> State:
    """The state of a parameter with codes and scales instead of quantised moments."""
    rows = parameter.shape[:-1]
    num_blocks = parameter.shape[-1] // BLOCK_SIZE
    plain = {"step": state["step"]}
    for name in MOMENTS:
        own = local_part(state[name])
        if isinstance(own, OptimState8bit):
            codes, scales = own.codes, own.scale.view(*own.codes.shape[:-1], num_blocks)
        else:  # this process has no row of it
            codes, scales = own.to(torch.uint8), own.new_zeros(*own.shape[:-1], num_blocks)
        plain[name + CODES] = _sharded_as(parameter, codes, parameter.shape)
        plain[name + SCALES] = _sharded_as(parameter, scales, (*rows, num_blocks))
    return plain


def _sharded_as(parameter: Tensor, own: Tensor, shape: tuple[int, ...]) -> Tensor:
    """This process's shard as a DTensor of the whole shape, sharded by rows as the parameter is."""
    if not is_dtensor(parameter):
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
