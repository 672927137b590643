"""Writes checkpoints and exports while the training goes on, and decides which process writes which tensors.

torch.distributed.checkpoint would decide this too, but only after every process had copied all tensors to host memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.model.dtensor import is_dtensor
from cosmos_worker.model.lora import merge_lora
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.runtime.stall import beating_while_files_grow
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.storage.volumes import EXPORT_FOLDER
from cosmos_worker.train import export
from cosmos_worker.train.change_meter import ChangeMeter, Compose, Exports
from cosmos_worker.train.checkpoint import (
    SHARDS_FOLDER,
    STATE_FOLDER,
    Files,
    begin_state,
    complete_state,
    describe_own_shards,
    discard_state,
    prune_states,
    remove_damaged,
    shards_path,
    state_path,
)
from cosmos_worker.train.export import (
    prune_exports,
    write_adapters,
    write_exports,
)

logger = logging.getLogger(__name__)

OPTIMIZER, STATE = "optimizer", "state"
Tensors = dict[str, Any]


def tensors_to_write(tensors: Tensors, rank: int, world_size: int) -> Tensors:
    """The tensors that this process writes; the processes together write every tensor once.

    Weights and averages are dealt one by one, the optimizer's states of a parameter together, each to the process with
    the fewest bytes so far. Entries that are no tensors stay in all processes.

    Args:
        tensors: parts by name, of ``optimizer`` the entry ``state``; the same names and order in all processes.
        rank: of this process.
        world_size: number of processes.
    """
    dealer = _Dealer(rank, world_size)
    own = dealer.deal_each({name: part for name, part in tensors.items() if name != OPTIMIZER})
    if OPTIMIZER in tensors:
        rest = dict(tensors[OPTIMIZER])
        own[OPTIMIZER] = {**dealer.deal_each({STATE: rest.pop(STATE)}), **rest}
    return own


class _Dealer:
    """Deals tensors to the processes that have them, each to the one with the fewest bytes so far."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._whole = (world_size, rank)
        """Number of processes with a whole tensor, and the number of this one among them."""
        self._dealt: dict[int, list[int]] = {}
        """Bytes dealt to each of the processes that have the same tensor, by the number of these."""

    def deal_each(self, parts: Mapping[str, Mapping[str, Any]]) -> Tensors:
        """The parts with the entries of this process; a part that becomes empty is left out, as it would be saved."""
        dealt = {name: self.deal(part) for name, part in parts.items()}
        return {name: own for name, own in dealt.items() if own or not parts[name]}

    def deal(self, entries: Mapping[str, Any]) -> Tensors:
        """The entries that fall to this process."""
        return {name: entry for name, entry in entries.items() if self._is_own(entry)}

    def _is_own(self, entry: object) -> bool:
        tensors = list(_tensors_in(entry))
        num_copies, own = self._copies(tensors)
        dealt = self._dealt.setdefault(num_copies, [0] * num_copies)
        chosen = dealt.index(min(dealt))
        dealt[chosen] += sum(tensor.nbytes for tensor in tensors)
        return chosen == own

    def _copies(self, tensors: list[Tensor]) -> tuple[int, int]:
        """Number of processes with the same shard, and the number of this one among them; DTensors decide."""
        for tensor in tensors:
            if is_dtensor(tensor):
                mesh = tensor.device_mesh
                replicated = [i for i, one in enumerate(tensor.placements) if one.is_replicate()]
                own = 0
                for i in replicated:
                    own = own * mesh.size(i) + mesh.get_local_rank(i)
                return prod(mesh.size(i) for i in replicated), own
        return self._whole


def _tensors_in(entry: object) -> Iterator[Tensor]:
    if isinstance(entry, Tensor):
        yield entry
    elif isinstance(entry, Mapping):
        for value in entry.values():
            yield from _tensors_in(value)


@contextmanager
def _reading_what_was_written() -> Iterator[None]:
    """Inside, files of this save that cannot be read are an error after which the training may be started again."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        raise RetryableError(
            f"what was just written cannot be read for the export: {error}; earlier checkpoints are intact"
        ) from error


@dataclass(frozen=True)
class _Pending:
    step: int
    progress: dict[str, Any]
    compose: Compose | None
    written: Future[Files]


class Saver:
    """Writes one checkpoint at a time; all processes call every method at the same step.

    Args:
        run: folder of the run.
        processes: of the run.
        keep_last, keep_exports: number of checkpoints and of exports that are kept.
        keep_best: the checkpoint with the lowest held-out loss is kept as well.
        open_base: opens the weights that the training began with; None = they were drawn at random.

    Attributes:
        changes: measures the change of complete checkpoints' weights against the base.
    """

    def __init__(
        self,
        run: Path,
        processes: ProcessGroup,
        keep_last: int,
        keep_exports: int,
        keep_best: bool = False,
        open_base: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.run, self.processes, self.keep_best = run, processes, keep_best
        self.keep_last, self.keep_exports = keep_last, keep_exports
        self.changes = ChangeMeter(run, open_base)
        # a group of its own: writing goes on beside the training's collectives, and may take long
        self._group = processes.new_cpu_group()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._pending: _Pending | None = None

    @property
    def has_written(self) -> bool:
        """True if this process has written its part of a checkpoint that is not complete yet."""
        return self._pending is not None and self._pending.written.done()

    def begin(
        self, step: int, tensors: dict[str, Any], compose: Compose | None, progress: dict[str, Any]
    ) -> None:
        """Copy what this process writes to the CPU and begin to write; an earlier checkpoint is completed first.

        Args:
            step: optimizer steps done.
            tensors: all that the checkpoint contains.
            compose: makes whole weights of the written shards, for the exports; called by the main process, in the
                thread that writes. None = only what is needed to continue is written.
            progress: what the checkpoint says beside its tensors.

        Raises:
            RetryableError: a failed write, here or of the earlier checkpoint; complete ones are intact.
        """
        self.finish()
        with self._failing_together(step):
            if self.processes.is_main:
                begin_state(self.run, step)
        from cosmos_worker.train.shard_files import copy_to_cpu

        own = tensors_to_write(tensors, self.processes.rank, self.processes.world_size)
        staged = copy_to_cpu(own)
        written = self._thread.submit(self._write, step, staged, compose)
        self._pending = _Pending(step, progress, compose, written)

    def _write(self, step: int, staged: dict[str, Any], compose: Compose | None) -> Files:
        from cosmos_worker.train.shard_files import save_shards

        # shards before exports: in this collective the others would wait for a main process that still exports
        with (
            beating_while_files_grow(self.run / STATE_FOLDER),
            reporting_full_disk(self.run / STATE_FOLDER),
        ):
            save_shards(shards_path(self.run, step), staged, self._group.handle)
        staged.clear()  # before the main process reads whole weights
        if self.processes.is_main and compose is not None:
            with beating_while_files_grow(self.run / EXPORT_FOLDER), _reading_what_was_written():
                self._export(step, compose(shards_path(self.run, step)))
        return describe_own_shards(shards_path(self.run, step), self.processes.rank)

    def _export(self, step: int, exports: Exports) -> None:
        if exports.adapters:
            write_adapters(self.run, step, exports.adapters)
        scales, average = exports.lora_scales, exports.average
        if average is not None:
            average = merge_lora(average, scales)
        regular = merge_lora(exports.regular, scales)
        write_exports(self.run, step, regular, average, torch.bfloat16)

    def finish(self) -> int | None:
        """Wait until the checkpoint in progress is written, and make it visible; returns its step, or None.

        Raises:
            RetryableError: a failed write; earlier checkpoints are intact.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        with self._failing_together(pending.step):
            files = pending.written.result()
        shards: Files = {}
        for some in self._group.gather(files):
            shards.update(some)
        with self._failing_together(pending.step):
            if self.processes.is_main:
                self.changes.wait()  # it reads a checkpoint that may be pruned now
                folder = complete_state(self.run, pending.step, pending.progress, shards)
                self.prune(pending.step)
                remove_damaged(self.run)
                logger.info("checkpoint step=%d folder=%s", pending.step, folder)
        if self.processes.is_main and pending.compose is not None:
            self.begin_change(pending.step, pending.compose)
        return pending.step

    def begin_change(self, step: int, compose: Compose) -> None:
        """Begin to measure the weights of a complete checkpoint, on the main process."""
        shards = state_path(self.run, step) / SHARDS_FOLDER
        self.changes.begin(step, partial(compose, shards))

    def prune(self, done_steps: int) -> None:
        """Delete checkpoints and exports that are not to be kept; the main process calls this."""
        spared = self.update_best(done_steps)
        prune_states(self.run, self.keep_last, spared)
        prune_exports(self.run, self.keep_exports, spared)

    def update_best(self, done_steps: int) -> tuple[int, ...]:
        """Write the best checkpoint so far to best.json, if it is to be kept; returns its step, or nothing."""
        if not self.keep_best:
            return ()
        with reporting_full_disk(self.run):
            best = export.update_best(self.run, done_steps)
        if best is None:
            return ()
        logger.info("best step=%d validation_loss=%.4f", best.step, best.validation_loss)
        return (best.step,)

    @contextmanager
    def _failing_together(self, step: int) -> Iterator[None]:
        """Raise the error of a failed write of one process in all, and remove the unfinished checkpoint."""
        failure = None
        try:
            yield
        except RetryableError as error:
            failure = error
        others = [text for text in self._group.gather(str(failure or "")) if text]
        if others:
            if self.processes.is_main:
                discard_state(self.run, step)
            raise failure or RetryableError(others[0])
