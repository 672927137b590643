"""What all processes know of a step, read from the device at once or, on a GPU, while it computes the next step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.gradients import Gradients
from cosmos_worker.train.step import LOSS_NAMES, StepResult


@dataclass(frozen=True)
class SharedStep:
    """A step as all processes know it after their exchange: means over their samples, and what is decided together.

    Attributes:
        losses: total, EDM and squared error, float32 (3,) on the CPU.
        grad_norm: of all gradients before clipping.
        bucket: of its samples.
        is_stopping: some process was asked to stop.
        is_checkpoint_written: every process has written its part of the checkpoint in progress.
        is_save_due: the main process says that the last checkpoint is too old.
    """

    losses: Tensor
    grad_norm: float
    bucket: str | None
    is_stopping: bool
    is_checkpoint_written: bool
    is_save_due: bool


@dataclass(frozen=True)
class _Queued:
    """A step whose values are on their way: three losses, three flags and the norm, float32 (7,) on the CPU."""

    values: Tensor
    copied: torch.cuda.Event | None
    gradients: Gradients
    bucket: str | None


def reads_late(device: torch.device) -> bool:
    """True if steps are read while the next one computes: on a GPU, which would otherwise wait for Python."""
    return device.type == "cuda"


class Readings:
    """Shares each step among all processes by one small collective, and reads it back by one copy.

    All processes call the same methods at the same steps, and get the same values.

    Args:
        processes: of the run.
        is_late: a step is read when the next one has been queued, unless it is needed before.
    """

    def __init__(self, processes: ProcessGroup, is_late: bool) -> None:
        self._processes, self._is_late = processes, is_late
        self._queued: deque[_Queued] = deque()

    def queue(self, result: StepResult, flags: Sequence[bool], bucket: str | None) -> None:
        """Share a step of this process; waits for no device.

        Args:
            result: of the step.
            flags: this process was asked to stop, has written its part of a checkpoint, says that one is due.
            bucket: of the step's samples.
        """
        device = self._processes.device
        is_cuda = device.type == "cuda"
        own = torch.tensor(flags, dtype=torch.float32)
        if is_cuda and torch.cuda.is_available():
            own = own.pin_memory()
        values = torch.cat([result.losses, own.to(device, non_blocking=True)])
        values = torch.cat([self._processes.mean(values), result.gradients.norm[None]])
        values = values.to("cpu", non_blocking=True)
        copied = None
        if is_cuda and torch.cuda.is_available():
            copied = torch.cuda.Event()
            copied.record()
        self._queued.append(_Queued(values, copied, result.gradients, bucket))

    def take(self, everything: bool) -> list[SharedStep]:
        """Read the steps that may be read now, oldest first.

        Args:
            everything: all that were queued, since something is due that needs them. The same happens where one of
                them says that the run stops or that a checkpoint is due.

        Raises:
            DataError: a gradient was not finite; names the step, whose update was left out.
        """
        found = list[SharedStep]()
        left = 1 if self._is_late and not everything else 0
        while len(self._queued) > left:
            found.append(_read(self._queued.popleft()))
            if found[-1].is_stopping or found[-1].is_save_due:
                left = 0
        return found


def _read(queued: _Queued) -> SharedStep:
    if queued.copied is not None:
        queued.copied.synchronize()
    losses = queued.values[: len(LOSS_NAMES)]
    stopping, written, save_due, norm = queued.values[len(LOSS_NAMES) :].tolist()
    if not math.isfinite(norm):
        queued.gradients.check()
    return SharedStep(losses, norm, queued.bucket, stopping > 0, written == 1, save_due > 0)
