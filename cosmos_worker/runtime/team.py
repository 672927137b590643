"""Several processes that share an inference item: over its batches, and over the frames of each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from cosmos_worker.errors import ConfigError


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
