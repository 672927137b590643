"""The processes of one training or inference item: those that torchrun describes, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from cosmos_worker.errors import ConfigError, StopRequested

PATIENCE = timedelta(days=7)
"""Processes wait for each other as long as it takes: one that fails ends the others through torchrun."""


@dataclass(frozen=True)
class Team:
    """This process among those that torchrun has started; by default it is alone.

    Attributes:
        rank: of this process.
        world_size: processes in all.
        everyone: all of them, on the CPU; None for a single process.
        context_group: those that share the frames of each video with this one; None if it has them alone.
    """

    rank: int = 0
    world_size: int = 1
    everyone: ProcessGroup | None = None
    context_group: ProcessGroup | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes the videos that it computes; one of those that share a video does."""
        return self.context_group is None or self.context_group.rank() == 0

    def own_batches(self, batches: Sequence[T]) -> list[T]:
        """This process's share of the batches of the whole list, so that a batch is the same for any team."""
        size = 1 if self.context_group is None else self.context_group.size()
        return list(batches[self.rank // size :: self.world_size // size])

    def from_main(self, value: T | None) -> T:
        """The value of process 0, which alone computes it."""
        values: list[Any] = [value]
        if self.everyone is not None:
            dist.broadcast_object_list(values, src=0, group=self.everyone)
        return cast(T, values[0])

    def meet(self) -> None:
        """Wait until all processes have come here."""
        self.gather(None)

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, once all have come here."""
        values: list[Any] = [value] * self.world_size
        if self.everyone is not None:
            dist.all_gather_object(values, value, group=self.everyone)
        return values

    def agree(self, tensor: Tensor) -> Tensor:
        """The tensor of the process that writes the video, in all that share it: kernels may round differently."""
        if self.context_group is not None:
            tensor = tensor.contiguous()
            dist.broadcast(tensor, group=self.context_group, group_src=0)
        return tensor

    def agree_on(self, value: T) -> T:
        """The value of the process that writes the video, in all that share it."""
        values: list[Any] = [value]
        if self.context_group is not None:
            dist.broadcast_object_list(values, group=self.context_group, group_src=0)
        return cast(T, values[0])


def check_team(world_size: int, context_parallel: int, num_latent_frames: int) -> None:
    """Check that the processes can share the frames.

    Raises:
        ConfigError: numbers that do not divide.
    """
    for number, what in ((world_size, "processes"), (num_latent_frames, "latent frames")):
        if number % context_parallel:
            raise ConfigError(
                f"context_parallel: {context_parallel} does not divide the {number} {what}; use a number that divides "
                f"{world_size} processes and {num_latent_frames} latent frames"
            )


def form_team(rank: int, world_size: int, context_parallel: int, device: torch.device) -> Team:
    """Form the groups inside the process group that is there; every process calls this.

    Args:
        rank: of this process.
        world_size: processes in all; 1 needs no process group.
        context_parallel: neighbours that share frames.
        device: where this process computes.
    """
    if world_size == 1:
        return Team()
    everyone = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(everyone, ProcessGroup)  # all processes belong to it
    context_group = None
    if context_parallel > 1:
        from torch.distributed.device_mesh import init_device_mesh

        shape = (world_size // context_parallel, context_parallel)
        context_group = init_device_mesh(device.type, shape).get_group(1)
    return Team(rank, world_size, everyone, context_group)


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
