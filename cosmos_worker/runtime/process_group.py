"""The process group that torchrun describes, or a single process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from cosmos_worker.errors import StopRequested
from cosmos_worker.runtime.team import PATIENCE

T = TypeVar("T")

MAIN_PROCESS_ALONE = timedelta(minutes=30)
"""How long processes wait in a collective: longer than anything that the main process does alone between two of them,
such as to load a tokenizer or to decode sample videos, during which the others wait in the next step."""


@dataclass(frozen=True)
class Processes:
    """This process's place among all, and its device."""

    rank: int
    world_size: int
    device: torch.device
    local_world_size: int = 1
    """Processes on this node."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def gather(self, value: T, group: ProcessGroup | None = None) -> list[T]:
        """The values of all processes, by rank; group: one of :meth:`new_cpu_group`, which waits longer."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group)
        return values

    def from_main(self, value: T) -> T:
        """The value of the main process."""
        values: list[Any] = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, src=0)
        return cast(T, values[0])

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def new_cpu_group(self) -> ProcessGroup | None:
        """A further group of all processes, for what runs beside others and waits for files; None for a single one."""
        if self.world_size == 1:
            return None
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(group, ProcessGroup)  # all processes belong to it
        return group

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str, threads: int | None) -> Iterator[Processes]:
    """Join the group that the environment describes (torchrun), and leave it at the end.

    Args:
        device: auto, cpu or cuda.
        threads: CPU threads of this process; None = PyTorch's choice.
    """
    use_cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    here = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(here)
    if threads is not None:
        torch.set_num_threads(threads)
    if world_size > 1:
        # checkpoints are written while the training goes on, which needs a group of its own for the CPU
        backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
        dist.init_process_group(backend, timeout=MAIN_PROCESS_ALONE)
    # after a failure the group is not left in order: its peers may wait in it, and it for them
    try:
        yield Processes(rank, world_size, here, local_world_size)
    except StopRequested:
        _leave(world_size)
        raise
    _leave(world_size)


def _leave(world_size: int) -> None:
    if world_size > 1:
        dist.destroy_process_group()
