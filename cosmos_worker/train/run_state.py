"""The state of a run: weights, optimizer, average and steps done, saved to checkpoints and continued from them.

It knows neither batches nor losses: ``trainer.py`` decides when a checkpoint is saved, ``saver.py`` writes it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.dtensor import gather_to_main
from cosmos_worker.model.lora import corrections_of, lora_scales
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.train.change_meter import Compose, Exports
from cosmos_worker.train.checkpoint import (
    SavedState,
    check_files,
    find_latest_state,
    wait_for_state,
)
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.export import judged_loss, list_exports
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.order import DataOrder
from cosmos_worker.train.same_run import (
    ROUNDING,
    check_same_options,
    options_of_rounding,
    tell_other_rounding,
)
from cosmos_worker.train.saver import Saver
from cosmos_worker.train.validation import HeldOutLoss
from cosmos_worker.train.written_weights import read_weights
from cosmos_worker.weights.adapter import Adapter

logger = logging.getLogger(__name__)


class RunState:
    """The state of a run in this process; all processes call the same methods at the same steps.

    Args:
        experiment: options of the run.
        model: the network with its uncertainty head, on the device, sharded or not; DDP is not around it.
        order: of the samples, whose position belongs to a checkpoint.
        saver: writes checkpoints and exports.
        position_file: tells the launcher the steps done and the step of the last complete checkpoint.
        base: address of the weights that the run began with, for the adapters of LoRA; None = they were drawn.

    Attributes:
        done_steps: optimizer steps done.
        saved_step: step of the last complete checkpoint, -1 before the first.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: CosmosModel,
        order: DataOrder,
        saver: Saver,
        position_file: PositionFile,
        base: str | None,
    ) -> None:
        self.experiment, self.model, self.saver, self.base = experiment, model, saver, base
        self._order, self._position_file = order, position_file
        self.optimizer = build_optimizer(model, experiment.optimizer)
        ema = experiment.ema
        source_dtype = torch.bfloat16 if experiment.compat.bfloat16_ema else torch.float32
        self.ema = PowerEma(model, ema.rate, source_dtype) if ema.enabled else None
        self.done_steps = 0
        self.saved_step = self._begun_step = self._exported_step = -1
        self._frozen: dict[str, Tensor] | None = None
        """Whole frozen weights on the main process, elsewhere nothing; None = not needed so far."""

    def finish_step(self) -> None:
        """Take the weights of an optimizer update into the average, and count the step."""
        if self.ema is not None:
            self.ema.update(self.done_steps)
        self.done_steps += 1
        self._write_position()

    def _write_position(self) -> None:
        saved_step = self.saved_step if self.saved_step >= 0 else None
        self._position_file.write(self.done_steps, saved_step)

    # --- continue ----------------------------------------------------------------------------

    def resume(self, start: tuple[Path, int] | None = None) -> None:
        """Continue from the newest complete checkpoint, if there is one, whatever number of processes wrote it.

        Args:
            start: folder of another run, and the step of its checkpoint to begin with; this one has none. The
                checkpoint is then written into this run too, so that it no longer needs the other.

        Raises:
            CheckpointError: it is damaged, of an earlier format, or belongs to another configuration or dataset.
            RetryableError: the main process has found one that this node does not see.
        """
        saved = self._find_checkpoint() if start is None else wait_for_state(*start)
        if self.saver.processes.is_main:
            self.saver.update_best(int(saved.progress["step"]) if saved else 0)
        if saved is None:
            self._write_position()
            return
        check_same_options(saved, self.experiment)
        tell_other_rounding(saved, self.experiment)
        self._order.check_state(saved.progress["data_order"], str(saved.folder))
        check_files(saved, self.saver.processes.rank, self.saver.processes.world_size)
        from cosmos_worker.train.shard_files import load_shards, restore

        tensors = self._tensors()
        load_shards(saved.shards, tensors)
        restore(self.model, self.optimizer, tensors, self._saves_frozen)
        self.done_steps = int(saved.progress["step"])
        if start is None:
            self.saved_step = self._begun_step = self.done_steps
            self._exported_step = self._newest_export()
        self._write_position()
        logger.info("continued step=%d from=%s", self.done_steps, saved.folder)
        if start is not None and self.done_steps < self.experiment.trainer.max_steps:
            self.save()  # the last step is saved with its held-out loss

    def _newest_export(self) -> int:
        """Step of the newest exported weights, as the main process sees them; -1 if there are none."""
        processes, run = self.saver.processes, self.saver.run
        steps = list_exports(run, "reg") if processes.is_main else ()
        return processes.from_main(max(steps, default=-1))

    def _find_checkpoint(self) -> SavedState | None:
        """The newest complete checkpoint that the main process sees: another node's view of a volume may be older."""
        processes, run = self.saver.processes, self.saver.run
        newest = find_latest_state(run) if processes.is_main else None
        step = processes.from_main(None if newest is None else int(newest.progress["step"]))
        return None if step is None else wait_for_state(run, step)

    @property
    def _saves_frozen(self) -> bool:
        """True if checkpoints contain frozen weights; with LoRA these are the weights that the run began with."""
        return not self.experiment.lora.rank

    def _tensors(self) -> dict[str, Any]:
        """All that a checkpoint contains, by parameter names, sharing memory with what is in use."""
        from cosmos_worker.train.shard_files import collect

        average = dict(self.ema.average) if self.ema else {}
        return {**collect(self.model, self.optimizer, self._saves_frozen), "ema": average}

    # --- save --------------------------------------------------------------------------------

    def begin_save(
        self, held_out_loss: HeldOutLoss | None = None, *, exports_weights: bool = True
    ) -> None:
        """Begin to write checkpoint and exports of the steps done, unless that has begun; the training may go on.

        Args:
            held_out_loss: of these weights; None = not taken.
            exports_weights: False = write only what is needed to continue, without exported weights.

        Raises:
            RetryableError: a failed write; complete checkpoints are intact.
        """
        lacks_weights = exports_weights and self._exported_step != self.done_steps
        if self._begun_step == self.done_steps and not lacks_weights:
            return
        progress: dict[str, Any] = {
            "data_order": self._order.state(self.done_steps),
            "experiment": options_that_decide_weights(self.experiment),
            ROUNDING: options_of_rounding(self.experiment),
        }
        if held_out_loss is not None:
            progress |= judged_loss(held_out_loss)
        self.finish_save()
        compose = self._composer() if exports_weights else None
        self.saver.begin(self.done_steps, self._tensors(), compose, progress)
        self._begun_step = self.done_steps
        if exports_weights:
            self._exported_step = self.done_steps

    def finish_save(self) -> None:
        """Wait until the checkpoint that is being written is complete.

        Raises:
            RetryableError: a failed write; complete checkpoints are intact.
        """
        step = self.saver.finish()
        if step is not None:
            self.saved_step = step
            self._write_position()

    def save(self, held_out_loss: HeldOutLoss | None = None) -> None:
        """Write checkpoint and exports of the steps done and wait; see :meth:`begin_save`."""
        self.begin_save(held_out_loss)
        self.finish_save()

    def _composer(self) -> Compose:
        """A function that makes the whole weights of written shards, for the thread of the main process that exports.

        All processes call this: the first time it gathers the frozen weights, which checkpoints do not contain.
        """
        if self._frozen is None:
            kept = {} if self._saves_frozen else self._frozen_parameters()
            self._frozen = gather_to_main(kept, self.saver.processes.is_main)
        lora, scales = self.experiment.lora, lora_scales(self.model)
        names, unsaved = list(self.model.state_dict()), self._frozen
        trained = {name for name, one in self.model.named_parameters() if one.requires_grad}
        trained |= {f"{name}.weight" for name in scales}  # once merged
        frozen = frozenset(set(names) - trained if scales else ())

        def compose(shards: Path) -> Exports:
            regular, average = read_weights(shards, names, unsaved)
            whole = {"reg": regular, **({} if average is None else {"ema": average})}
            adapters = {
                kind: Adapter(corrections_of(weights, self.model), lora.alpha, self.base)
                for kind, weights in whole.items()
                if lora.rank
            }
            return Exports(regular, average, adapters, scales, frozen)

        return compose

    def _frozen_parameters(self) -> dict[str, Tensor]:
        return {name: one for name, one in self.model.named_parameters() if not one.requires_grad}

    def finish_changes(self) -> None:
        """Wait for the weight change of the last checkpoint; measure it now if a stop had prevented that."""
        changes, processes = self.saver.changes, self.saver.processes
        changes.wait()
        if processes.from_main(changes.lacks(self.saved_step)):
            compose = self._composer()
            if processes.is_main:
                self.saver.begin_change(self.saved_step, compose)
                changes.wait()
