"""The training loop: the next batch, one step, and what is due after it; :func:`train` reads from top to bottom.

One training step passes through five files: :meth:`Trainer.step` here takes the micro-batches and sets the learning
rate; ``step.py`` computes gradients, clips them and updates the weights; ``diffusion/edm.py`` adds the noise and
computes the loss; ``model/dit.py`` is the network, ``model/layers.py`` its layers. Samples come from ``data.py``, their
order from ``order.py``, their random numbers from ``noise.py``.

This file decides when losses are logged, held-out losses taken, sample videos made and checkpoints saved.
``metrics.py``, ``validation.py``, ``samples.py`` and ``run_state.py`` do it and decide nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import TrackerName, TrainerConfig, learning_rate
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import StopRequested
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.train.data import Batch, WindowDataset, micro_batch_positions
from cosmos_worker.train.metrics import MetricsLog
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.optimizer import set_learning_rate
from cosmos_worker.train.order import BucketOrder, DataOrder
from cosmos_worker.train.parallelize import replicate
from cosmos_worker.train.readings import Readings, reads_late
from cosmos_worker.train.run_state import RunState
from cosmos_worker.train.samples import SampleVideos
from cosmos_worker.train.save_timer import SaveTimer
from cosmos_worker.train.saver import Saver
from cosmos_worker.train.speed import SpeedMeter
from cosmos_worker.train.step import LossSums, StepResult, train_step
from cosmos_worker.train.time_use import TimeUse
from cosmos_worker.train.trackers.opening import open_trackers
from cosmos_worker.train.validation import HeldOutLoss, describe_held_out, held_out_loss
from cosmos_worker.weights.weight_change import read_change

logger = logging.getLogger(__name__)


def train(trainer: Trainer, stop: StopSignal) -> dict[str, Any]:
    """Train to ``max_steps``; all processes call this, after :meth:`RunState.resume`.

    Returns:
        steps: done; checkpoint: step of the last one; loss, edm_loss, mse: last means, absent if no step was left;
        validation_loss_before and _after; change: of the weights against the base, where it is known.

    Raises:
        StopRequested: asked to stop; a checkpoint was saved.
        DataError: a gradient that is not finite, see ``compat.zeroed_gradients``.
        RetryableError: a failed write of a checkpoint.
    """
    state, result = trainer.state, dict[str, Any]()
    with trainer.reporting(), trainer.saver.changes.until_stopped(stop):
        if state.done_steps == 0:
            result["validation_loss_before"] = _rounded(trainer.validate())
            trainer.sample()
        trainer.save_timer.restart()
        trainer.time.take()  # what came before the first step
        result |= _train_to_max_steps(trainer, stop)
        held_out = trainer.validate()
        result["validation_loss_after"] = _rounded(held_out)
        trainer.sample()
        state.save(held_out)
    state.finish_changes()
    change = read_change(trainer.run, state.saved_step)
    result |= {"change": change} if change else {}
    return {**result, "steps": state.done_steps, "checkpoint": state.saved_step}


def _train_to_max_steps(trainer: Trainer, stop: StopSignal) -> dict[str, float]:
    """All steps that are left, with what is due after each; returns the last mean losses."""
    options, state = trainer.experiment.trainer, trainer.state
    sums, means = LossSums(list(trainer.order.members)), dict[str, float]()
    while state.done_steps < options.max_steps:
        bucket = trainer.order.bucket(state.done_steps)
        result, rate = trainer.step()
        trainer.readings.queue(result, trainer.flags(stop), bucket)
        steps = trainer.readings.take(everything=trainer.is_anything_due)
        for one in steps:
            sums.add(one.losses, one.bucket)
        if is_due(state.done_steps, options.log_every_steps) or trainer.is_done:
            found = sums.take()
            means = found.values
            extra = {"learning_rate": rate, "grad_norm": steps[-1].grad_norm}
            trainer.report({**means, **extra}, found.by_bucket)
        is_stopping = any(one.is_stopping for one in steps)
        if is_stopping:
            trainer.saver.changes.drop()
        if any(one.is_checkpoint_written for one in steps):
            with trainer.time.of("saving"):
                state.finish_save()
        if is_stopping:
            state.save()
            raise StopRequested(
                f"{trainer.run}: stopped after step {state.done_steps}; run the same command to continue"
            )
        held_out = None
        if not trainer.is_done:  # the last step is validated and sampled by train()
            if validation_is_due(options, state.done_steps):
                held_out = trainer.validate()
            if is_due(state.done_steps, options.sample_every_steps):
                trainer.sample()
        with trainer.time.of("saving"):
            _begin_save_if_due(trainer, any(one.is_save_due for one in steps), held_out)
    return means


def _begin_save_if_due(
    trainer: Trainer, is_due_by_time: bool, held_out: HeldOutLoss | None
) -> None:
    """Begin to write a checkpoint in the background if one is due, by its step or by the time since the last."""
    options, state = trainer.experiment.trainer, trainer.state
    if trainer.is_done and options.keep_best:
        return  # train() saves the last one with its held-out loss
    if is_due(state.done_steps, options.save_every_steps):
        state.begin_save(held_out)  # that of the last step while train() validates
    elif is_due_by_time and not trainer.is_done:
        state.begin_save(exports_weights=False)
    else:
        return
    trainer.save_timer.restart()


def is_due(done_steps: int, every_steps: int | None) -> bool:
    """True if something that is done every so many steps is due after this one; None = never."""
    return every_steps is not None and done_steps % every_steps == 0


def validation_is_due(options: TrainerConfig, done_steps: int) -> bool:
    """True if held-out losses are due: by their own interval, and for every checkpoint if the best one is kept."""
    if options.keep_best and is_due(done_steps, options.save_every_steps):
        return True
    return is_due(done_steps, options.validate_every_steps)


@dataclass
class Trainer:
    """A run in this process; all processes call the same methods at the same steps.

    Attributes:
        experiment, run: options and folder.
        model: the network with its uncertainty head, on the device, parallelized.
        dataset, held_out: windows to train on, and to validate and sample with; the latter may be empty.
        processes: of the run, with their context groups.
        position_file: tells the launcher how far the run is.
        samples: makes sample videos; None = not asked for.
        trackers: names of the services that figures and videos go to.
        base: address of the weights that the run began with, for the adapters of LoRA; None = they were drawn.
        open_base: opens these weights, to measure their change; None = they were drawn.
        clock: seconds, for the checkpoints that are due by time.
    """

    experiment: Experiment
    run: Path
    model: CosmosModel
    dataset: WindowDataset
    held_out: WindowDataset
    processes: ProcessGroup
    position_file: PositionFile = field(default_factory=PositionFile)
    samples: SampleVideos | None = None
    trackers: tuple[TrackerName, ...] = ()
    base: str | None = None
    open_base: Callable[[], Mapping[str, Tensor]] | None = None
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        options, processes = self.experiment.trainer, self.processes
        whole = DataOrder(
            len(self.dataset), options.global_batch_size, options.seed, self.dataset.digest
        )
        self.order = BucketOrder(whole, self.dataset.members)
        for line in self.order.describe():
            logger.info("%s", line)
        if len(self.held_out):
            logger.info("%s", describe_held_out(self.held_out, options))
        self.positions = micro_batch_positions(
            options.global_batch_size,
            options.least_micro_batch,
            processes.data_rank,
            processes.data_size,
        )
        self.model.logvar.requires_grad_(self.experiment.diffusion.use_logvar)
        self.parallel = replicate(self.model, processes)
        limits = (options.keep_last, options.keep_exports, options.keep_best)
        self.saver = Saver(self.run, processes, *limits, open_base=self.open_base)
        self.state = RunState(
            self.experiment, self.model, whole, self.saver, self.position_file, self.base
        )
        self.save_timer = SaveTimer(options.save_every_minutes, self.clock)
        self._log: MetricsLog | None = None
        self._reads_late = reads_late(processes.device)
        self.readings = Readings(processes, self._reads_late)
        self.time = TimeUse()
        self._work = SpeedMeter(self.experiment, self.dataset, processes)

    @property
    def is_done(self) -> bool:
        """True if all steps are done."""
        return self.state.done_steps == self.experiment.trainer.max_steps

    @property
    def is_anything_due(self) -> bool:
        """True if something is due after the last step that needs to know all steps so far."""
        options, step = self.experiment.trainer, self.state.done_steps
        intervals = (
            options.log_every_steps,
            options.save_every_steps,
            options.validate_every_steps,
            options.sample_every_steps,
        )
        return self.is_done or any(is_due(step, every) for every in intervals)

    # --- one step ----------------------------------------------------------------------------

    def step(self) -> tuple[StepResult, float]:
        """One optimizer step.

        Returns:
            Its losses on this process's samples and its gradients, and the learning rate.

        Raises:
            DataError: a gradient that is not finite; on a GPU this is noticed when the step is read.
        """
        step, experiment = self.state.done_steps, self.experiment
        samples = self.order.batch(step)
        self._work.add(self.order.bucket(step))
        with self.time.of("data"):
            micro_batches = [self._micro_batch(samples, one) for one in self.positions]
        rate = learning_rate(experiment.optimizer, experiment.trainer.max_steps, step)
        set_learning_rate(self.state.optimizer, rate)
        result = train_step(
            self.parallel,
            self.state.optimizer,
            micro_batches,
            experiment,
            self.processes.device,
            lambda: f"step {step + 1}, windows {self._names(samples)}",
            checks_later=self._reads_late,
        )
        self.state.finish_step()  # the average, and the count of steps
        return result, rate

    def _micro_batch(self, samples: Sequence[int], positions: Sequence[int]) -> tuple[Batch, Noise]:
        """The samples at some positions of the global batch, and their noise."""
        step = self.state.done_steps
        epochs = self.order.epochs(step)
        batch = self.dataset.batch(
            [samples[position] for position in positions],
            [epochs[position] for position in positions],
        )
        shape = batch.x0_BCTHW.shape[1:]
        return batch, draw_noise(shape, self.experiment, "train", step, positions)

    def _names(self, samples: Sequence[int]) -> str:
        names = [self.dataset.windows[sample].window_id for sample in samples]
        return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")

    def flags(self, stop: StopSignal) -> tuple[bool, bool, bool]:
        """The flags of this process beside its step: stop requested, save written, save due by time."""
        is_save_due = self.processes.is_main and self.save_timer.is_due
        return stop.requested, self.saver.has_written, is_save_due

    # --- reports -----------------------------------------------------------------------------

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Inside, the main process writes figures to the log, metrics.jsonl and the trackers."""
        if self.processes.is_main:
            options, done = self.experiment.trainer, self.state.done_steps
            trackers = open_trackers(self.trackers, self.run, done, self.experiment)
            samples_per_step = options.global_batch_size
            self._log = MetricsLog(self.run, done, options.max_steps, samples_per_step, trackers)
        try:
            yield
        finally:
            if self._log:
                self._log.close()

    def report(self, values: dict[str, float], by_bucket: dict[str, float]) -> None:
        """Report the means since the last report, see :meth:`MetricsLog.step`."""
        interval = self.time.take()
        speed = self._work.take(interval.step_seconds)
        if self._log:
            self._log.step(self.state.done_steps, values, interval, speed, by_bucket)

    def validate(self) -> HeldOutLoss | None:
        """Take and report the held-out losses; None if nothing is held out."""
        with self.time.of("validating"):
            found = self.validation_loss()
        if self._log and found is not None:
            self._log.validation(self.state.done_steps, found)
        return found

    def validation_loss(self) -> HeldOutLoss | None:
        """The held-out losses of the weights, and of their average if it is judged; None if nothing is held out."""
        if not len(self.held_out):
            return None
        ema = self.state.ema if self.experiment.trainer.keep_best else None
        return held_out_loss(self.model, self.held_out, self.experiment, self.processes, ema)

    def sample(self) -> None:
        """Make and report sample videos; nothing if they were not asked for."""
        if self.samples is None:
            return
        with self.time.of("sampling"):
            paths = self.samples.write(self.model, self.state.ema, self.state.done_steps)
        if self._log:
            self._log.videos(self.state.done_steps, paths)


def _rounded(found: HeldOutLoss | None) -> float | None:
    return None if found is None else round(found.loss, 6)
