"""The blocks of the network as code that torch.compile has made of them, kept in a folder of one job.

Compiled code is code, and what is kept of it is unpickled: a folder is never shared between jobs. Every process of a
job has its own folder in it, because each compiles for itself, and volumes of some clusters lock files poorly.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.config.training import CompileChoice
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosDiT, RunBlock, call
from cosmos_worker.model.layers import DiTBlock

logger = logging.getLogger(__name__)

OPTION = "acceleration.compile"
COMPILED_FOLDER = "compiled"
"""Folder of compiled code in the folder of a run, or of generated videos."""
MAX_FORMS = 256
"""Forms of the inputs (sizes, types, with or without gradients) of which each has its own compiled code."""


def keep_compiled_code(folder: Path, rank: int) -> None:
    """Read and write compiled code in a folder of this process, so that the next process need not compile again.

    Args:
        folder: of a run, or of generated videos; of this job alone.
        rank: number of this process.
    """
    own = folder / COMPILED_FOLDER / f"rank-{rank}"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(own)
    os.environ["TRITON_CACHE_DIR"] = str(own / "triton")


def compile_blocks(
    net: CosmosDiT, run: RunBlock = call, *, any_length: bool = False, is_strict: bool = True
) -> None:
    """Compile every block in place: all share the code of one; names of weights stay, and hooks stay outside.

    Args:
        net: before it is sharded; compiled when it first runs.
        run: runs a block; activation checkpointing is compiled too.
        any_length: one code for all sizes, for contexts whose length changes from batch to batch; else each size has
            its own, so that a run that is continued computes what it would have computed.
        is_strict: an error where a part of a block cannot be compiled; False = that part runs as it is.
    """
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MAX_FORMS)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, MAX_FORMS)
    config.suppress_errors = not is_strict

    def forward(block: DiTBlock, *inputs: object) -> Tensor:
        return run(partial(DiTBlock.forward, block), *inputs)

    compiled: Callable[..., Tensor] = torch.compile(
        forward, fullgraph=is_strict, dynamic=any_length
    )
    for block in net.blocks.values():
        assert isinstance(block, DiTBlock)
        # a method of this one block, so that hooks of FSDP stay outside
        block.forward = partial(compiled, block)  # type: ignore[method-assign]
    net.run_block = call


def decide_to_compile(
    choice: CompileChoice, device: torch.device, pays: bool, obstacles: Sequence[str]
) -> bool:
    """True if blocks are to be compiled; the log says why not where they would be otherwise.

    Args:
        choice: of the experiment.
        device: where they run.
        pays: on a CPU, the work is long enough to make up for compiling.
        obstacles: options with which blocks are not compiled.

    Raises:
        ConfigError: enabled, and it cannot be done; says why.
    """
    if choice == "disabled" or (choice == "auto" and device.type != "cuda" and not pays):
        return False
    reason = f"not made for {', '.join(obstacles)}" if obstacles else why_unavailable(device)
    if reason is None:
        return True
    if choice == "enabled":
        raise ConfigError(f"{OPTION}: 'enabled' cannot be used here ({reason}); use 'auto'")
    logger.warning("%s: blocks are not compiled (%s); steps take longer", OPTION, reason)
    return False


def why_unavailable(device: torch.device) -> str | None:
    """The reason why nothing can be compiled here, such as a missing C++ compiler; None if it can.

    One small function is compiled and run, which also shows that code in the folder may be executed.
    """
    try:
        with torch.no_grad():
            torch.compile(_probe, fullgraph=True)(torch.ones(32, device=device))
    except (
        Exception
    ) as error:  # of PyTorch's compiler, of Triton, of the C++ compiler and of the loader
        cause = error.__cause__ or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"[:200]
    return None


def _probe(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x) * 2 + x.sum()
