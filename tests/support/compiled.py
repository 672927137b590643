"""The small network with compiled blocks; as a program, it says what it had to compile."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from cosmos_worker.model.compiled_blocks import compile_blocks, keep_compiled_code
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.train.parallelize import _block_runner
from support.training import small_model


def compute(model: CosmosModel, bfloat16: bool, text_length: int = 8) -> tuple[Tensor, Tensor]:
    """Output of the network, and all gradients in one vector."""
    generator = torch.Generator().manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16, cache_enabled=False):
        output = model.net(
            torch.randn(2, 16, 3, 4, 4, generator=generator),
            torch.randn(2, generator=generator),
            torch.randn(2, text_length, 16, generator=generator),
            torch.zeros(2, 1, 3, 4, 4),
            torch.full((2,), 10.0),
        )
    output.float().square().mean().backward()
    gradients = [one.grad.flatten() for one in model.net.parameters() if one.grad is not None]
    return output.detach(), torch.cat(gradients)


def count_breaks(
    kind: str, bfloat16: bool, text_lengths: Sequence[int] = (8,), any_length: bool = False
) -> dict[str, int]:
    """Graphs and breaks of the blocks, traced as for compiling but run without a C++ compiler."""
    from torch._dynamo.utils import counters

    counters.clear()
    model = small_model()
    compile_with = torch.compile

    def trace(function: Any, **options: Any) -> Any:
        return compile_with(function, backend="aot_eager", **options)

    with mock.patch.object(torch, "compile", trace):
        compile_blocks(model.net, _block_runner(kind), any_length=any_length)
    for length in text_lengths:
        model.zero_grad()
        compute(model, bfloat16, length)
    return {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }


def main(folder: Path) -> None:
    """Compute with blocks compiled by the C++ compiler; print how many graphs were compiled and found."""
    from torch._dynamo.utils import counters

    keep_compiled_code(folder, rank=0)
    model = small_model()
    compile_blocks(model.net, _block_runner("selective"))
    sums = [value.double().sum().item() for value in compute(model, bfloat16=False)]
    aot, inductor = counters["aot_autograd"], counters["inductor"]
    found = {
        "compiled": aot["autograd_cache_miss"] + inductor["fxgraph_cache_miss"],
        "found": aot["autograd_cache_hit"] + inductor["fxgraph_cache_hit"],
        "counters": {name: dict(counters[name]) for name in ("aot_autograd", "inductor")},
        "sums": sums,
    }
    print(json.dumps(found))  # noqa: T201 - a program


if __name__ == "__main__":
    main(Path(sys.argv[1]))
