"""What people see of a run while it goes: figures, held-out losses, sample videos; and when each is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import Self

from cosmos_worker.train.metrics import MetricsLog
from cosmos_worker.train.trackers.opening import open_trackers
from cosmos_worker.train.validation import HeldOutLoss

if TYPE_CHECKING:
    from cosmos_worker.train.trainer import Trainer


class Watch:
    """Reports a run; all processes call the same methods at the same steps, the main one writes.

    Args:
        trainer: after :meth:`Trainer.resume`.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.options = options = trainer.experiment.trainer
        self._log: MetricsLog | None = None
        if trainer.processes.is_main:
            done = trainer.done_steps
            trackers = open_trackers(trainer.trackers, trainer.run, done, trainer.experiment)
            samples_per_step = options.global_batch_size
            self._log = MetricsLog(trainer.run, done, options.max_steps, samples_per_step, trackers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._log:
            self._log.close()

    def step(self, values: dict[str, float], by_bucket: dict[str, float]) -> None:
        """Report the means of the last steps, see :meth:`MetricsLog.step`."""
        if self._log:
            self._log.step(self.trainer.done_steps, values, by_bucket)

    def validate(self) -> HeldOutLoss | None:
        """Take and report the held-out losses; None if nothing is held out."""
        found = self.trainer.validation_loss()
        if self._log and found is not None:
            self._log.validation(self.trainer.done_steps, found)
        return found

    def sample(self) -> None:
        """Write and report sample videos, if that is asked for."""
        trainer = self.trainer
        if trainer.samples is None:
            return
        paths = trainer.samples.write(trainer.model, trainer.ema, trainer.done_steps)
        if self._log:
            self._log.videos(trainer.done_steps, paths)

    def after_step(self) -> None:
        """What is due after a step; the last one is validated and sampled when the training ends."""
        options, done = self.options, self.trainer.done_steps
        is_last, saves = done == options.max_steps, done % options.save_every_steps == 0
        found = None
        if not is_last:
            validates = _is_due(done, options.validate_every_steps)
            if validates or (saves and options.keep_best):
                found = self.validate()
            if _is_due(done, options.sample_every_steps):
                self.sample()
        if saves and not (is_last and options.keep_best):
            self.trainer.begin_save(found)


def _is_due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0
