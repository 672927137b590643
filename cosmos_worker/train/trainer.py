"""The training loop: batches, steps, reports, checkpoints; continues where the last complete checkpoint ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import decisive_options
from cosmos_worker.config.training import TrackerName, learning_rate
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import ConfigError, StopRequested
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.dtensor import gather_to_main
from cosmos_worker.model.lora import corrections_of, lora_scales
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.runtime.process_group import Processes
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.train.change_meter import Exports
from cosmos_worker.train.checkpoint import (
    SavedState,
    check_files,
    find_latest_state,
    wait_for_state,
)
from cosmos_worker.train.data import Batch, WindowDataset
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.export import LOSS
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.optimizer import build_optimizer, set_learning_rate
from cosmos_worker.train.order import BucketOrder, DataOrder
from cosmos_worker.train.parallelize import Layout, replicate
from cosmos_worker.train.same_run import check_same_options
from cosmos_worker.train.samples import SampleVideos
from cosmos_worker.train.saver import Saver
from cosmos_worker.train.step import LossSums, StepResult, train_step
from cosmos_worker.train.validation import HeldOutLoss, held_out_loss
from cosmos_worker.train.watch import Watch
from cosmos_worker.weights.adapter import Adapter
from cosmos_worker.weights.weight_change import read_change

logger = logging.getLogger(__name__)


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

    model is the network with its uncertainty head, on the device and spread as layout says; held_out may be empty;
    position_file is for the launcher; samples and trackers are for people who watch it; base is the address of the
    weights that it began with, for adapters, and open_base opens them, to measure how far it has come.
    """

    experiment: Experiment
    run: Path
    model: CosmosModel
    dataset: WindowDataset
    held_out: WindowDataset
    processes: Processes
    layout: Layout = field(default_factory=Layout)
    position_file: PositionFile = field(default_factory=PositionFile)
    samples: SampleVideos | None = None
    trackers: tuple[TrackerName, ...] = ()
    base: str | None = None
    open_base: Callable[[], Mapping[str, Tensor]] | None = None

    def __post_init__(self) -> None:
        trainer = self.experiment.trainer
        whole = DataOrder(
            len(self.dataset), trainer.global_batch_size, trainer.seed, self.dataset.digest
        )
        self.order = BucketOrder(whole, self.dataset.members)
        for line in self.order.describe():
            logger.info("%s", line)
        self.positions = micro_batch_positions(
            trainer.global_batch_size,
            trainer.micro_batch_size,
            self.layout.data_rank,
            self.layout.data_size,
        )
        self.model.logvar.requires_grad_(self.experiment.diffusion.use_logvar)
        self.parallel = replicate(self.model, self.layout, self.processes)
        self.optimizer = build_optimizer(self.model, self.experiment.optimizer)
        ema = self.experiment.ema
        self.ema = (
            PowerEma(self.model, ema.rate, getattr(torch, ema.source_dtype))
            if ema.enabled
            else None
        )
        kept = (trainer.keep_last, trainer.keep_exports, trainer.keep_best)
        self.saver = Saver(self.run, self.processes, *kept, open_base=self.open_base)
        self.done_steps = 0
        self.saved_step = self.begun_step = -1

    # --- continue ----------------------------------------------------------------------------

    def resume(self) -> None:
        """Continue from the newest complete checkpoint, if there is one, whatever processes wrote it.

        Raises:
            CheckpointError: it is damaged, of an earlier format, or belongs to another configuration or dataset.
            RetryableError: the main process has found one that is not seen here.
        """
        # one process looks: on a network disk another node may still see an older folder
        newest = find_latest_state(self.run) if self.processes.is_main else None
        step = self.processes.from_main(None if newest is None else int(newest.progress["step"]))
        state = None if step is None else wait_for_state(self.run, step)
        if self.processes.is_main:
            self.saver.note_best(int(state.progress["step"]) if state else 0)
        if state is None:
            self._tell_position()
            return
        self._check_same_run(state)
        check_files(state, self.processes.rank, self.processes.world_size)
        from cosmos_worker.train.checkpoint import (
            load_shards,
            restore,
        )

        tensors = self._tensors()
        load_shards(state.shards, tensors)
        restore(self.model, self.optimizer, tensors, self._saves_frozen)
        self.done_steps = self.saved_step = self.begun_step = int(state.progress["step"])
        self._tell_position()
        logger.info("continued step=%d from=%s", self.done_steps, state.folder)

    @property
    def _saves_frozen(self) -> bool:
        """With LoRA the frozen weights are those of the model that was begun with."""
        return not self.experiment.lora.rank

    def _tensors(self) -> dict[str, Any]:
        """Everything that changes in training, by parameter names; the average is the very one in use."""
        from cosmos_worker.train.checkpoint import collect

        average = dict(self.ema.average) if self.ema else {}
        return {**collect(self.model, self.optimizer, self._saves_frozen), "ema": average}

    def _tell_position(self) -> None:
        self.position_file.write(self.done_steps, self.saved_step if self.saved_step >= 0 else None)

    def _check_same_run(self, state: SavedState) -> None:
        check_same_options(state, self.experiment)
        self.order.whole.check_state(state.progress["data_order"], str(state.folder))

    # --- save --------------------------------------------------------------------------------

    def begin_save(self, found: HeldOutLoss | None = None) -> None:
        """Begin to write checkpoint and exports of the steps done; the training may go on.

        Args:
            found: held-out loss of these steps, if it was taken.

        Raises:
            RetryableError: a failed write; complete checkpoints are intact.
        """
        if self.begun_step == self.done_steps:
            return
        progress: dict[str, Any] = {
            "data_order": self.order.whole.state(self.done_steps),
            "experiment": decisive_options(self.experiment),
        }
        if found is not None and math.isfinite(found.loss):
            progress[LOSS] = found.rounded().loss
        self.finish_save()
        self.saver.changes.wait()  # two sets of whole weights may not fit into the memory
        self.saver.begin(self.done_steps, self._tensors(), self._exports(), progress)
        self.begun_step = self.done_steps

    def finish_save(self) -> None:
        """Wait until the checkpoint that is being written is complete.

        Raises:
            RetryableError: a failed write; complete checkpoints are intact.
        """
        step = self.saver.finish()
        if step is not None:
            self.saved_step = step
            self._tell_position()

    def save(self, found: HeldOutLoss | None = None) -> None:
        """Write checkpoint and exports of the steps done, with the held-out loss if it was taken, and wait."""
        self.begin_save(found)
        self.finish_save()

    def _exports(self) -> Exports:
        is_main = self.processes.is_main
        state = gather_to_main(self.model.state_dict(), is_main)
        whole = {"reg": state}
        if self.ema is not None:
            whole["ema"] = {**state, **gather_to_main(self.ema.average, is_main)}
        lora = self.experiment.lora
        adapters = {
            kind: Adapter(corrections_of(some, self.model), lora.alpha, self.base)
            for kind, some in whole.items()
            if lora.rank and is_main
        }
        scales = lora_scales(self.model)
        trained = {name for name, one in self.model.named_parameters() if one.requires_grad}
        trained |= {f"{name}.weight" for name in scales}  # once merged
        frozen = frozenset(set(state) - trained if scales else ())
        return Exports(state, whole.get("ema"), adapters, scales, frozen)

    def finish_changes(self) -> None:
        """Wait for the change of the last checkpoint, which is measured now if the training was stopped at it."""
        changes = self.saver.changes
        changes.wait()
        if self.processes.from_main(changes.lacks(self.saved_step)):
            exports = self._exports()
            if self.processes.is_main:
                changes.begin(self.saved_step, exports)
                changes.wait()

    # --- one step ----------------------------------------------------------------------------

    def _micro_batch(self, samples: Sequence[int], positions: Sequence[int]) -> tuple[Batch, Noise]:
        epochs = self.order.epochs(self.done_steps)
        batch = self.dataset.batch(
            [samples[position] for position in positions],
            [epochs[position] for position in positions],
        )
        shape = batch.x0_BCTHW.shape[1:]
        noise = draw_noise(shape, self.experiment, "train", self.done_steps, positions)
        return batch, noise

    def step(self) -> tuple[StepResult, float]:
        """One optimizer step; returns its result on this process and the learning rate."""
        step, experiment = self.done_steps, self.experiment
        samples = self.order.batch(step)
        rate = learning_rate(experiment.optimizer, experiment.trainer.max_steps, step)
        set_learning_rate(self.optimizer, rate)
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

    def validation_loss(self) -> HeldOutLoss | None:
        """Held-out losses, or None if nothing is held out."""
        if not len(self.held_out):
            return None
        return held_out_loss(
            self.model, self.held_out, self.experiment, self.layout, self.processes
        )


def run_training(trainer: Trainer, stop: StopSignal) -> dict[str, Any]:
    """Train to max_steps, reporting and saving on the way; call after :meth:`Trainer.resume`.

    Returns:
        Steps, step of the last checkpoint, and last losses.

    Raises:
        StopRequested: asked to stop; a checkpoint was saved.
    """
    with Watch(trainer) as watch, trainer.saver.changes.until_stopped(stop):
        result: dict[str, Any] = {}
        if trainer.done_steps == 0:
            result["validation_loss_before"] = _rounded(watch.validate())
            watch.sample()
        result |= _train_to_the_end(trainer, stop, watch)
        found = watch.validate()
        result["validation_loss_after"] = _rounded(found)
        watch.sample()
        trainer.save(found)
    trainer.finish_changes()
    change = read_change(trainer.run, trainer.saved_step)
    result |= {"change": change} if change else {}
    return {**result, "steps": trainer.done_steps, "checkpoint": trainer.saved_step}


def _train_to_the_end(trainer: Trainer, stop: StopSignal, watch: Watch) -> dict[str, float]:
    """All steps that are left; returns the last mean losses."""
    options, processes = trainer.experiment.trainer, trainer.processes
    means: dict[str, float] = {}
    losses = LossSums(list(trainer.order.members))
    while trainer.done_steps < options.max_steps:
        bucket = trainer.order.bucket(trainer.done_steps)
        result_of_step, rate = trainer.step()
        # one small collective a step: mean losses, whether any process was asked to stop, and whether all have written
        flags = torch.tensor([float(stop.requested), float(trainer.saver.has_written)])
        shared = torch.cat([result_of_step.losses.cpu(), flags])
        shared = processes.mean(shared.to(processes.device)).cpu()
        losses.add(shared[:3], bucket)
        done = trainer.done_steps
        if done % options.log_every_steps == 0 or done == options.max_steps:
            found = losses.take()
            means = found.values
            extra = {"learning_rate": rate, "grad_norm": result_of_step.grad_norm}
            watch.step({**means, **extra}, found.by_bucket)
        if shared[3] > 0:
            trainer.saver.changes.drop()
        if shared[4] == 1:
            trainer.finish_save()
        if shared[3] > 0:
            trainer.save()
            raise StopRequested(
                f"{trainer.run}: stopped after step {done}; run the same command to continue"
            )
        watch.after_step()
    return means


def _rounded(found: HeldOutLoss | None) -> float | None:
    return None if found is None else round(found.loss, 6)
