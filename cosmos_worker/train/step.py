"""One optimizer step: losses of the micro-batches, gradients, update; and mean losses between reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import DiffusionConfig
from cosmos_worker.diffusion.edm import Loss, Noise, denoise, edm_loss
from cosmos_worker.model.dtensor import is_sharded
from cosmos_worker.train.data import Batch
from cosmos_worker.train.gradients import Gradients, clip_gradients
from cosmos_worker.train.optimizer import can_skip_on_device, step_unless

D = TypeVar("D", Batch, Noise)


def use_bfloat16(config: DiffusionConfig, device: torch.device) -> bool:
    """True if matrix products run in bfloat16."""
    if config.compute_dtype == "auto":
        return device.type == "cuda"
    return config.compute_dtype == "bfloat16"


def _map_tensors(tensors: D, change: Callable[[Tensor], Tensor]) -> D:
    """A copy with every tensor changed."""
    changed = {one.name: change(getattr(tensors, one.name)) for one in fields(tensors)}
    return replace(tensors, **changed)


def batch_loss(
    model: nn.Module,
    batch: Batch,
    noise: Noise,
    config: DiffusionConfig,
    device: torch.device,
    *,
    only_generated: bool = True,
) -> Loss:
    """Loss of a micro-batch: the mean over generated frames, or over known ones too.

    Tensors are moved to the device here, without waiting for those that are pinned.
    """

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    noise, batch = _map_tensors(noise, move), _map_tensors(batch, move)
    # a weight is used once, so a cache of rounded ones would only keep those of blocks that are computed again
    with torch.autocast(
        device.type, torch.bfloat16, enabled=use_bfloat16(config, device), cache_enabled=False
    ):
        denoised = denoise(
            model,
            batch.x0_BCTHW,
            batch.text_BSD,
            batch.fps_B,
            noise,
            config.sigma_data,
        )
    return edm_loss(
        denoised,
        batch.x0_BCTHW,
        noise.sigma_B,
        config.sigma_data,
        config.use_logvar,
        only_generated=only_generated,
    )


@dataclass(frozen=True)
class StepResult:
    """The values that one step of this process has computed, on the device.

    Attributes:
        losses: means over its micro-batches, (total, edm, mse), float32 (3,).
        gradients: norms before clipping.
    """

    losses: Tensor
    gradients: Gradients


def _without_sync(model: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Reduce gradients after the last micro-batch only: DDP's, or those between the copies of a sharded model.

    Between the shards of a copy they are reduced each time, or every process would have those of the whole model.
    """
    if is_sharded(model):
        model.set_requires_all_reduce(is_last)
    elif isinstance(model, DistributedDataParallel) and not is_last:
        return model.no_sync()
    return nullcontext()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[tuple[Batch, Noise]],
    experiment: Experiment,
    device: torch.device,
    describe: Callable[[], str],
    *,
    checks_later: bool = False,
) -> StepResult:
    """One update of the weights from all micro-batches of this process.

    Gradients that are not finite update nothing, unless compat.zeroed_gradients.

    Args:
        model: :class:`CosmosModel`, sharded or not, or DDP around it.
        optimizer: its learning rate is set by the caller.
        micro_batches: samples and their noise.
        experiment: options of loss and clipping.
        device: where to compute.
        describe: names step and samples, for errors.
        checks_later: wait for no GPU; the caller checks the gradients of the result before it uses the weights. Not
            with optimizers whose update cannot be left out on the device, which are checked here.

    Raises:
        DataError: a gradient that is not finite, unless it is to be checked later.
    """
    if device.type == "cuda" and torch.cuda.is_available():
        # from pinned memory a GPU reads by itself, so that all work of the step can be queued ahead of it
        pin = Tensor.pin_memory
        micro_batches = [
            (_map_tensors(batch, pin), _map_tensors(noise, pin)) for batch, noise in micro_batches
        ]
    losses = torch.zeros(3, device=device)
    for i, (batch, noise) in enumerate(micro_batches):
        with _without_sync(model, is_last=i == len(micro_batches) - 1):
            loss = batch_loss(
                model,
                batch,
                noise,
                experiment.diffusion,
                device,
                only_generated=not experiment.compat.known_frames_in_loss,
            )
            (loss.total / len(micro_batches)).backward()
        losses += torch.stack([loss.total, loss.edm, loss.mse]).detach() / len(micro_batches)
    gradients = clip_gradients(model, experiment, describe)
    if checks_later and gradients.must_be_finite and can_skip_on_device(optimizer):
        step_unless(optimizer, gradients.is_bad)
    else:
        gradients.check()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(losses, gradients)


LOSS_NAMES = ("loss", "edm_loss", "mse")
"""Names of the losses, in the order of ``StepResult.losses``."""


@dataclass(frozen=True)
class MeanLosses:
    """Means over the steps of an interval.

    Attributes:
        values: losses by NAMES.
        by_bucket: loss of each bucket that had a step, in the order of the buckets.
    """

    values: dict[str, float]
    by_bucket: dict[str, float]


class LossSums:
    """Adds up the losses of steps. Every step is of one bucket on all processes, so that its mean is the bucket's too.

    Args:
        buckets: names; None is the only one of a dataset without buckets, which is not reported by itself.
    """

    def __init__(self, buckets: Sequence[str | None]) -> None:
        self._buckets = buckets
        self._clear()

    def _clear(self) -> None:
        self._total, self._num_steps = torch.zeros(len(LOSS_NAMES)), 0
        self._by_bucket: dict[str | None, list[float]] = {name: [] for name in self._buckets}

    def add(self, losses: Tensor, bucket: str | None) -> None:
        """Add a step.

        Args:
            losses: means over its samples on all processes, float32 (3,) on the CPU.
            bucket: of its samples.
        """
        self._total, self._num_steps = self._total + losses, self._num_steps + 1
        self._by_bucket[bucket].append(float(losses[0]))

    def take(self) -> MeanLosses:
        """The means since the last call, after at least one step."""
        means = (self._total / self._num_steps).tolist()
        found = {
            name: sum(losses) / len(losses)
            for name, losses in self._by_bucket.items()
            if name is not None and losses
        }
        self._clear()
        return MeanLosses(dict(zip(LOSS_NAMES, means, strict=True)), found)
