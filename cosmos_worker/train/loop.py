"""The training loop: batches, steps, reports, checkpoints; continues where the last complete checkpoint ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cosmos_worker.checkpoint.export import prune_exports, write_exports
from cosmos_worker.checkpoint.state import (
    TrainingState,
    load_latest_state,
    prune_states,
    save_state,
)
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import CheckpointError, ConfigError, StopRequested
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.options import Experiment, decisive_options
from cosmos_worker.outcomes import PositionFile
from cosmos_worker.train.batches import Batch, WindowDataset
from cosmos_worker.train.distributed import Processes
from cosmos_worker.train.draws import draw_noise
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.metrics import MetricsLog
from cosmos_worker.train.order import DataOrder
from cosmos_worker.train.schedule import learning_rate
from cosmos_worker.train.step import StepResult, batch_loss, train_step
from cosmos_worker.train.stop import StopSignal

logger = logging.getLogger(__name__)


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Paths whose values differ, as ``key.sub (old -> new)``."""
    found = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += differing_keys(before, now, f"{prefix}{key}.")
        elif before != now:
            found.append(f"{prefix}{key} ({before!r} -> {now!r})")
    return found


def micro_batch_positions(
    global_batch_size: int, micro_batch_size: int, rank: int, world_size: int
) -> list[range]:
    """Positions in the global batch of each micro-batch of a process.

    Raises:
        ConfigError: sizes that do not divide.
    """
    if global_batch_size % world_size:
        raise ConfigError(
            f"trainer.global_batch_size: {global_batch_size} is not a multiple of the {world_size} processes"
        )
    local = global_batch_size // world_size
    micro = min(micro_batch_size, local)
    if local % micro:
        raise ConfigError(
            f"trainer.micro_batch_size: {micro} does not divide the {local} samples of each process "
            f"(global_batch_size {global_batch_size} over {world_size} processes)"
        )
    first = rank * local
    return [range(start, start + micro) for start in range(first, first + local, micro)]


@dataclass
class Trainer:
    """A run in progress.

    model is the plain network with its uncertainty head, on the device; held_out may be empty; position_file is
    for the launcher.
    """

    experiment: Experiment
    run: Path
    model: CosmosModel
    dataset: WindowDataset
    held_out: WindowDataset
    processes: Processes
    position_file: PositionFile = field(default_factory=PositionFile)

    def __post_init__(self) -> None:
        trainer, optimizer = self.experiment.trainer, self.experiment.optimizer
        self.order = DataOrder(
            len(self.dataset), trainer.global_batch_size, trainer.seed, self.dataset.digest
        )
        self.positions = micro_batch_positions(
            trainer.global_batch_size,
            trainer.micro_batch_size,
            self.processes.rank,
            self.processes.world_size,
        )
        self.model.logvar.requires_grad_(self.experiment.diffusion.use_logvar)
        self.parallel: nn.Module = self.model
        if self.processes.world_size > 1:
            self.parallel = DistributedDataParallel(self.model)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in self.model.parameters() if parameter.requires_grad],
            lr=optimizer.learning_rate,
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        ema = self.experiment.ema
        self.ema = (
            PowerEma(self.model, ema.rate, getattr(torch, ema.source_dtype))
            if ema.enabled
            else None
        )
        self.done_steps = 0
        self.saved_step = -1

    # --- continue ----------------------------------------------------------------------------

    def resume(self) -> None:
        """Continue from the newest complete checkpoint, if there is one.

        Raises:
            CheckpointError: it is damaged, or belongs to another configuration or dataset.
        """
        state = load_latest_state(self.run)
        if state is None:
            self._tell_position()
            return
        self._check_same_run(state)
        self.model.load_state_dict(state.tensors["model"])
        self.optimizer.load_state_dict(state.tensors["optimizer"])
        if self.ema is not None:
            self.ema.load(state.tensors["ema"])
        self.done_steps = self.saved_step = int(state.progress["step"])
        self._tell_position()
        logger.info("continued step=%d from=%s", self.done_steps, state.folder)

    def _tell_position(self) -> None:
        self.position_file.write(self.done_steps, self.saved_step if self.saved_step >= 0 else None)

    def _check_same_run(self, state: TrainingState) -> None:
        differing = differing_keys(state.progress["experiment"], decisive_options(self.experiment))
        if differing:
            raise CheckpointError(
                f"{state.folder}: was trained with other options: {', '.join(differing)}; "
                "continue with the same options, or start a run of another name"
            )
        self.order.check_state(state.progress["data_order"], str(state.folder))

    # --- save --------------------------------------------------------------------------------

    def save(self) -> None:
        """Write exports and checkpoint of the steps done, then delete old ones; the main process writes."""
        if self.saved_step == self.done_steps:
            return
        if self.processes.is_main:
            average = self.ema.average if self.ema else None
            state = self.model.state_dict()
            write_exports(self.run, self.done_steps, state, average, torch.bfloat16)
            tensors = {
                "model": state,
                "optimizer": self.optimizer.state_dict(),
                "ema": average or {},
            }
            progress = {
                "data_order": self.order.state(self.done_steps),
                "experiment": decisive_options(self.experiment),
            }
            folder = save_state(self.run, self.done_steps, tensors, progress)
            prune_states(self.run, self.experiment.trainer.keep_last)
            prune_exports(self.run, self.experiment.trainer.keep_exports)
            logger.info("checkpoint step=%d folder=%s", self.done_steps, folder)
        self.processes.barrier()
        self.saved_step = self.done_steps
        self._tell_position()

    # --- one step ----------------------------------------------------------------------------

    def _micro_batch(self, samples: Sequence[int], positions: Sequence[int]) -> tuple[Batch, Noise]:
        batch = self.dataset.batch([samples[position] for position in positions])
        noise = draw_noise(
            self.dataset.latent_shape, self.experiment, "train", self.done_steps, positions
        )
        return batch, noise

    def step(self) -> tuple[StepResult, float]:
        """One optimizer step; returns its result on this process and the learning rate."""
        step, experiment = self.done_steps, self.experiment
        samples = self.order.batch(step)
        rate = learning_rate(experiment.optimizer, experiment.trainer.max_steps, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        result = train_step(
            self.parallel,
            self.optimizer,
            [self._micro_batch(samples, positions) for positions in self.positions],
            experiment.diffusion,
            experiment.optimizer,
            self.processes.device,
            lambda: f"step {step + 1}, windows {self._names(samples)}",
        )
        if self.ema is not None:
            self.ema.update(step)
        self.done_steps += 1
        self._tell_position()
        return result, rate

    def _names(self, samples: Sequence[int]) -> str:
        names = [self.dataset.windows[sample].window_id for sample in samples]
        return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")

    @torch.no_grad()
    def validation_loss(self) -> float:
        """EDM loss on held-out windows at fixed noise, weights as they are now."""
        trainer = self.experiment.trainer
        total, count = 0.0, 0
        for first in range(0, len(self.held_out), trainer.micro_batch_size):
            samples = range(first, min(first + trainer.micro_batch_size, len(self.held_out)))
            batch = self.held_out.batch(samples)
            for draw in range(trainer.validation_draws):
                noise = draw_noise(
                    self.held_out.latent_shape, self.experiment, "validation", draw, list(samples)
                )
                loss = batch_loss(
                    self.model, batch, noise, self.experiment.diffusion, self.processes.device
                )
                total += float(loss.edm) * len(samples)
                count += len(samples)
        return total / count


def run_training(trainer: Trainer, stop: StopSignal) -> dict[str, Any]:
    """Train to max_steps, reporting and saving on the way; call after :meth:`Trainer.resume`.

    Returns:
        Steps, step of the last checkpoint, and last losses.

    Raises:
        StopRequested: asked to stop; a checkpoint was saved.
    """
    options, processes = trainer.experiment.trainer, trainer.processes
    log = None
    if processes.is_main:
        log = MetricsLog(
            trainer.run, trainer.done_steps, options.max_steps, options.global_batch_size
        )
    result: dict[str, Any] = {}
    sums, counted = torch.zeros(4), 0
    if trainer.done_steps == 0:
        result["validation_loss_before"] = _validate(trainer, log)
    while trainer.done_steps < options.max_steps:
        result_of_step, rate = trainer.step()
        # one small collective a step: mean losses, and whether any process was asked to stop
        shared = torch.cat([result_of_step.losses.cpu(), torch.tensor([float(stop.requested)])])
        shared = processes.mean(shared.to(processes.device)).cpu()
        sums, counted = sums + shared, counted + 1
        done = trainer.done_steps
        if log and (done % options.log_every_steps == 0 or done == options.max_steps):
            names = ("loss", "edm_loss", "mse")
            means = dict(zip(names, (sums[:3] / counted).tolist(), strict=True))
            result.update(means)
            log.step(
                done,
                {
                    **means,
                    "learning_rate": rate,
                    "grad_norm": result_of_step.grad_norm,
                },
            )
            sums, counted = torch.zeros(4), 0
        if shared[3] > 0:
            trainer.save()
            raise StopRequested(
                f"{trainer.run}: stopped after step {done}; run the same command to continue"
            )
        if (
            options.validate_every_steps
            and done % options.validate_every_steps == 0
            and done < options.max_steps
        ):
            _validate(trainer, log)
        if done % options.save_every_steps == 0:
            trainer.save()
    result["validation_loss_after"] = _validate(trainer, log)
    trainer.save()
    if log:
        log.close()
    return {**result, "steps": trainer.done_steps, "checkpoint": trainer.saved_step}


def _validate(trainer: Trainer, log: MetricsLog | None) -> float | None:
    if log is None or not len(trainer.held_out):
        return None
    loss = trainer.validation_loss()
    log.validation(trainer.done_steps, loss)
    return round(loss, 6)
