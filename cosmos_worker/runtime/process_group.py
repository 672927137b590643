"""This process among those that torchrun has started: its rank, and how they exchange values.

Nothing else in the worker reads RANK, WORLD_SIZE, LOCAL_RANK or LOCAL_WORLD_SIZE. The command line and the launcher
need them before PyTorch is loaded, so this module imports PyTorch only inside what communicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from cosmos_worker.errors import ConfigError, StopRequested
from cosmos_worker.runtime.heap import keep_freed_memory

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import Tensor

T = TypeVar("T")
DeviceType = Literal["cpu", "cuda"]

RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The variables that torchrun sets for each process it starts."""
UNLIMITED_WAIT = timedelta(days=7)
"""Timeout of a CPU group, whose processes wait for files and for each other as long as it takes: one that fails ends
the others through torchrun."""
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Shortest timeout of the training's own group: longer than anything that the main process does alone between two
collectives, such as loading a tokenizer or decoding sample videos, during which the others wait in the next step."""


def read_rank(environment: Mapping[str, str]) -> str:
    """The text of RANK, ``0`` where it is not set; in a pod of a PyTorchJob, outside torchrun, the node's number."""
    return environment.get("RANK") or "0"


def is_started_by_torchrun(environment: Mapping[str, str]) -> bool:
    """True if the environment says how many processes there are."""
    return "WORLD_SIZE" in environment


@dataclass(frozen=True)
class ProcessGroup:
    """This process in a group of processes; by default it is alone.

    Attributes:
        rank: number of this process in the group, from 0.
        world_size: processes of the group.
        local_rank: number of this process on its node, and of its GPU.
        local_world_size: processes on this node.
        device_type: of the device that this process computes on.
        handle: PyTorch's group, for the collectives; None = the default group, or none for a single process.
        context_group: set by :meth:`with_context_parallel`; see :attr:`context`.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device_type: DeviceType = "cpu"
    handle: dist.ProcessGroup | None = None
    context_group: ProcessGroup | None = None

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], device_type: DeviceType = "cpu"
    ) -> ProcessGroup:
        """All processes that torchrun has started, on all nodes; a single one where it says nothing."""
        return cls(
            rank=int(read_rank(environment)),
            world_size=int(environment.get("WORLD_SIZE", 1)),
            local_rank=int(environment.get("LOCAL_RANK", 0)),
            local_world_size=int(environment.get("LOCAL_WORLD_SIZE", 1)),
            device_type=device_type,
        )

    @property
    def is_main(self) -> bool:
        """True if this is process 0, which writes the files that exist once."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        import torch

        if self.device_type == "cuda":
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    # --- subgroups -----------------------------------------------------------------------------

    def new_cpu_group(self) -> ProcessGroup:
        """The same processes with a CPU group of their own, in which they may wait for :data:`UNLIMITED_WAIT`.

        Its collectives do not mix with those of this group, so they may run beside them; all processes call this.
        """
        if self.world_size == 1:
            return self
        import torch.distributed as dist

        handle = dist.new_group(backend="gloo", timeout=UNLIMITED_WAIT)
        assert isinstance(handle, dist.ProcessGroup)  # all processes belong to it
        return replace(self, handle=handle)

    def with_context_parallel(self, size: int) -> ProcessGroup:
        """The same processes, of which ``size`` neighbours compute the latent frames of the same samples.

        All processes call this. ``size`` must divide the number of processes; 1 changes nothing.
        """
        if size == 1:
            return self
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(self.device_type, (self.world_size // size, size))
        context = replace(self, rank=self.rank % size, world_size=size, handle=mesh.get_group(1))
        return replace(self, context_group=context)

    @property
    def context(self) -> ProcessGroup:
        """The processes that compute frames of the same samples as this one; this one alone without such a group."""
        alone = ProcessGroup(local_rank=self.local_rank, device_type=self.device_type)
        return self.context_group or alone

    @property
    def data_rank(self) -> int:
        """Number of this process's context group among them all: samples are dealt to these groups."""
        return self.rank // self.context.world_size

    @property
    def data_size(self) -> int:
        """Number of context groups, which compute different samples."""
        return self.world_size // self.context.world_size

    def own_batches(self, batches: Sequence[T]) -> list[T]:
        """The batches that fall to this process's context group: every ``data_size``-th of the whole list."""
        return list(batches[self.data_rank :: self.data_size])

    # --- collectives: all processes of the group call them in the same order ---------------------

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, pickled to be sent."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.handle)
        return values

    def from_main(self, value: T | None) -> T:
        """The value of process 0, pickled to be sent; what the others pass is ignored."""
        values: list[Any] = [value]
        if self.world_size > 1:
            import torch.distributed as dist

            dist.broadcast_object_list(values, group=self.handle, group_src=0)
        return cast(T, values[0])

    def tensor_from_main(self, tensor: Tensor) -> Tensor:
        """The tensor of process 0; the others pass one of the same shape, dtype and device, which is overwritten."""
        if self.world_size > 1:
            import torch.distributed as dist

            tensor = tensor.contiguous()
            dist.broadcast(tensor, group=self.handle, group_src=0)
        return tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes, in place."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_reduce(values, group=self.handle)
            values /= self.world_size
        return values

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        self.gather(None)


def check_context_parallel(world_size: int, context_parallel: int, num_latent_frames: int) -> None:
    """Check that the processes of an inference item can share the latent frames of its videos.

    Raises:
        ConfigError: ``context_parallel`` does not divide the number of processes or of latent frames.
    """
    for number, what in ((world_size, "processes"), (num_latent_frames, "latent frames")):
        if number % context_parallel:
            raise ConfigError(
                f"context_parallel: {context_parallel} does not divide the {number} {what}; use a number that divides "
                f"{world_size} processes and {num_latent_frames} latent frames"
            )


@contextmanager
def join_processes(
    device: str, threads: int | None, timeout: timedelta = COLLECTIVE_TIMEOUT
) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun has started in PyTorch's default group, and leave it at the end.

    Args:
        device: auto, cpu or cuda; auto = cuda where there is a GPU.
        threads: CPU threads of this process; None = PyTorch's choice.
        timeout: of the group's collectives.
    """
    import torch
    import torch.distributed as dist

    use_cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    processes = ProcessGroup.from_environment(os.environ, "cuda" if use_cuda else "cpu")
    if use_cuda:
        torch.cuda.set_device(processes.device)
    else:
        keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    if processes.world_size > 1:
        # checkpoints are written while the training goes on, which needs a backend for the CPU too
        backend = "cpu:gloo,cuda:nccl" if use_cuda else "gloo"
        dist.init_process_group(backend, timeout=timeout)
    # after a failure the group is left as it is: this process would wait for peers, which may wait for it
    try:
        yield processes
    except StopRequested:
        _leave(processes)
        raise
    _leave(processes)


def _leave(processes: ProcessGroup) -> None:
    if processes.world_size > 1:
        import torch.distributed as dist

        dist.destroy_process_group()
