"""Measure forward and backward of the network beside diffusers' CosmosTransformer3DModel.

Run ``OMP_NUM_THREADS=1 .venv/bin/python benchmarks/training_step.py [--rounds 9] [--json FILE]``. Both networks have
the same weights and inputs, and are first shown to compute the same output and gradients. Ways: each in eager mode and
compiled block by block, as the options of each say; and the matrix products of our step alone, which no way can go
below. In bfloat16, both run under autocast over float32 weights, as in training. ``--tiny`` measures a network of 32
channels, to see that it runs; ``--without compiled`` leaves out what must be compiled first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))

from matrix_products import products_of
from networks import (
    TEXT_TOKENS,
    Inputs,
    check_same,
    our_network,
    random_inputs,
    run_ours,
    run_theirs,
    their_network,
)
from side_by_side import Comparison, add_options, compare, finish

from cosmos_worker.config.network import NetConfig

REFERENCE = "diffusers, eager"
PRODUCTS = "the matrix products of our step alone"
LARGE = NetConfig(model_channels=1024, num_blocks=4, num_heads=8)
SIZE = (8, 16, 20)
"""Latent frames, rows and columns: 640 tokens."""
TINY = NetConfig(
    model_channels=32, num_blocks=2, num_heads=2, text_channels=16, adaln_lora_dim=8,
    max_latent_size=16, max_latent_frames=8,
)  # fmt: skip
TINY_SIZE = (3, 4, 4)


def step_of(
    forward: Callable[[], Tensor], target: Tensor, parameters: Sequence[Tensor], bfloat16: bool
) -> Callable[[], None]:
    """Forward and backward; gradients are dropped, as the optimizer's ``zero_grad`` does."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            output = forward()
        (output.float() - target).square().mean().backward()
        for parameter in parameters:
            parameter.grad = None

    return step


def ways_of(given: Inputs, net: NetConfig, bfloat16: bool, compiled: bool) -> dict[str, Any]:
    """Name → one step of that way."""
    ours = our_network(net)
    theirs = their_network(ours)
    check_same(ours, theirs, given)

    def ours_step() -> Callable[[], None]:
        return step_of(
            lambda: run_ours(ours, given), given.target_BCTHW, [*ours.parameters()], bfloat16
        )

    def theirs_step(model: torch.nn.Module) -> Callable[[], None]:
        return step_of(
            lambda: run_theirs(model, given), given.target_BCTHW, [*model.parameters()], bfloat16
        )

    eager = ours_step()
    ways = {REFERENCE: theirs_step(theirs), "ours, eager": eager, PRODUCTS: products_of(eager)}
    if compiled:
        ways |= compiled_ways(ours, given, bfloat16, theirs_step)
    return ways


def compiled_ways(
    ours: Any,  # noqa: ANN401 - networks
    given: Inputs,
    bfloat16: bool,
    theirs_step: Callable[[torch.nn.Module], Callable[[], None]],
) -> dict[str, Any]:
    """The same networks with compiled blocks, as copies, since compiling stays."""
    from cosmos_worker.model.compiled_blocks import compile_blocks

    other = our_network(ours.net.config)
    compile_blocks(other.net)
    peer = their_network(ours)
    # diffusers is typed in part
    peer.compile_repeated_blocks(fullgraph=True)  # type: ignore[operator]
    step = step_of(
        lambda: run_ours(other, given), given.target_BCTHW, [*other.parameters()], bfloat16
    )
    return {"diffusers, compiled": theirs_step(peer), "ours, compiled": step}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; returns what is written as JSON."""
    parser = add_options(argparse.ArgumentParser(description=__doc__))
    parser.add_argument("--tiny", action="store_true", help="a network of 32 channels")
    parser.add_argument("--without", choices=["compiled"], help="ways to leave out")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="default: both")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    net, size = (TINY, TINY_SIZE) if options.tiny else (LARGE, SIZE)
    given = random_inputs(net, size, TEXT_TOKENS)
    comparisons: list[Comparison] = []
    facts: dict[str, Any] = {"network": net.model_dump(), "tokens": given.num_tokens}
    for dtype in [options.dtype] if options.dtype else ["float32", "bfloat16"]:
        ways = ways_of(given, net, dtype == "bfloat16", options.without != "compiled")
        one = compare(dtype, ways, options, REFERENCE)
        comparisons.append(one)
        facts[f"share of the products, {dtype}"] = {
            name: round(one.share(PRODUCTS, name), 3) for name in ways
        }
    result = finish("training-step", comparisons, options, facts)
    for dtype, share in result["facts"].items():
        print(f"{dtype}: {share}")
    return result


if __name__ == "__main__":
    main()
