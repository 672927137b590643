"""Checkpoints and exports, written while the training goes on, and which process writes which tensors.

torch.distributed.checkpoint would decide this too, but only among copies in host memory that all of them had made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.errors import RetryableError
from cosmos_worker.model.dtensor import is_spread
from cosmos_worker.model.lora import merge_lora
from cosmos_worker.runtime.process_group import Processes
from cosmos_worker.storage.files import reporting_full_disk
from cosmos_worker.train.change_meter import ChangeMeter, Exports
from cosmos_worker.train.checkpoint import (
    STATE_FOLDER,
    Files,
    begin_state,
    complete_state,
    describe_own_shards,
    discard_state,
    prune_states,
    shards_path,
)
from cosmos_worker.train.export import (
    prune_exports,
    update_best,
    write_adapters,
    write_exports,
)

OPTIMIZER, STATE = "optimizer", "state"
Tensors = dict[str, Any]


def own_share(tensors: Tensors, rank: int, world_size: int) -> Tensors:
    """What this process is to write; the processes together write everything once.

    Weights and averages are dealt one by one, the optimizer's states of a parameter together, each to the process that
    has the least so far. What is not of tensors stays everywhere.

    Args:
        tensors: parts by name, of the optimizer its ``state``; the same names in the same order in all processes.
        rank: of this process.
        world_size: all processes.
    """
    dealer = _Dealer(rank, world_size)
    own = dealer.deal_each({name: part for name, part in tensors.items() if name != OPTIMIZER})
    if OPTIMIZER in tensors:
        rest = dict(tensors[OPTIMIZER])
        own[OPTIMIZER] = {**dealer.deal_each({STATE: rest.pop(STATE)}), **rest}
    return own


class _Dealer:
    def __init__(self, rank: int, world_size: int) -> None:
        self._place = (world_size, rank)
        self._dealt: dict[int, list[int]] = {}
        """Bytes of each holder, by number of holders."""

    def deal_each(self, parts: Mapping[str, Mapping[str, Any]]) -> Tensors:
        """The parts with what falls to this process; one of which nothing is left is left out, as it would be saved."""
        dealt = {name: self.deal(part) for name, part in parts.items()}
        return {name: own for name, own in dealt.items() if own or not parts[name]}

    def deal(self, entries: Mapping[str, Any]) -> Tensors:
        """The entries that fall to this process."""
        return {name: entry for name, entry in entries.items() if self._is_own(entry)}

    def _is_own(self, entry: object) -> bool:
        tensors = list(_tensors_in(entry))
        holders, own = self._holders(tensors)
        dealt = self._dealt.setdefault(holders, [0] * holders)
        chosen = dealt.index(min(dealt))
        dealt[chosen] += sum(tensor.nbytes for tensor in tensors)
        return chosen == own

    def _holders(self, tensors: list[Tensor]) -> tuple[int, int]:
        """How many processes have the same part, and which of them this one is; tensors that are spread decide."""
        for tensor in tensors:
            if is_spread(tensor):
                mesh = tensor.device_mesh
                copies = [i for i, one in enumerate(tensor.placements) if one.is_replicate()]
                own = 0
                for i in copies:
                    own = own * mesh.size(i) + mesh.get_local_rank(i)
                return prod(mesh.size(i) for i in copies), own
        return self._place


def _tensors_in(entry: object) -> Iterator[Tensor]:
    if isinstance(entry, Tensor):
        yield entry
    elif isinstance(entry, Mapping):
        for value in entry.values():
            yield from _tensors_in(value)


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pending:
    step: int
    progress: dict[str, Any]
    exports: Exports
    written: Future[Files]


class Saver:
    """Writes one checkpoint at a time; all processes call every method at the same step.

    Args:
        run: folder of the run.
        processes: all of them.
        keep_last, keep_exports: how many are kept.
        keep_best: whether that of the lowest held-out loss is kept as well.
        open_base: opens the weights that the training began with; None = they were drawn.

    Attributes:
        changes: how far the weights of complete checkpoints are from these.
    """

    def __init__(
        self,
        run: Path,
        processes: Processes,
        keep_last: int,
        keep_exports: int,
        keep_best: bool = False,
        open_base: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.run, self.processes, self.keep_best = run, processes, keep_best
        self.keep_last, self.keep_exports = keep_last, keep_exports
        self.changes = ChangeMeter(run, open_base)
        # writing goes on beside the training, whose collectives have another group, and may take long
        self._group = processes.new_cpu_group()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._pending: _Pending | None = None

    @property
    def has_written(self) -> bool:
        """Whether this process has written its part of a checkpoint that is not complete yet."""
        return self._pending is not None and self._pending.written.done()

    def begin(
        self, step: int, tensors: dict[str, Any], exports: Exports, progress: dict[str, Any]
    ) -> None:
        """Copy what this process writes to the CPU and begin to write; an earlier checkpoint is completed first.

        Raises:
            RetryableError: a failed write, here or of the earlier checkpoint; complete ones are intact.
        """
        self.finish()
        with self._failing_together(step):
            if self.processes.is_main:
                begin_state(self.run, step)
        from cosmos_worker.train.checkpoint import copy_to_cpu

        own = own_share(tensors, self.processes.rank, self.processes.world_size)
        staged = copy_to_cpu(own)
        written = self._thread.submit(self._write, step, staged, exports)
        self._pending = _Pending(step, progress, exports, written)

    def _write(self, step: int, staged: dict[str, Any], exports: Exports) -> Files:
        from cosmos_worker.train.checkpoint import save_shards

        # together first: the others would wait in it for a main process that still exports, or has failed to
        with reporting_full_disk(self.run / STATE_FOLDER):
            save_shards(shards_path(self.run, step), staged, self._group)
        if self.processes.is_main:
            self._export(step, exports)
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
        """Wait until the checkpoint is written and make it visible; returns its step, or None if there is none.

        Raises:
            RetryableError: a failed write; earlier checkpoints are intact.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        with self._failing_together(pending.step):
            files = pending.written.result()
        shards: Files = {}
        for some in self.processes.gather(files, self._group):
            shards.update(some)
        with self._failing_together(pending.step):
            if self.processes.is_main:
                folder = complete_state(self.run, pending.step, pending.progress, shards)
                spared = self.note_best(pending.step)
                prune_states(self.run, self.keep_last, spared)
                prune_exports(self.run, self.keep_exports, spared)
                logger.info("checkpoint step=%d folder=%s", pending.step, folder)
        if self.processes.is_main:
            self.changes.begin(pending.step, pending.exports)
        return pending.step

    def note_best(self, done_steps: int) -> tuple[int, ...]:
        """Write which checkpoint is the best so far, if that is asked for; its step, or nothing."""
        if not self.keep_best:
            return ()
        with reporting_full_disk(self.run):
            best = update_best(self.run, done_steps)
        if best is None:
            return ()
        logger.info("best step=%d validation_loss=%.4f", best.step, best.validation_loss)
        return (best.step,)

    @contextmanager
    def _failing_together(self, step: int) -> Iterator[None]:
        """A failed write of one process is an error of all, and leaves nothing."""
        failure = None
        try:
            yield
        except RetryableError as error:
            failure = error
        others = [text for text in self.processes.gather(str(failure or ""), self._group) if text]
        if others:
            if self.processes.is_main:
                discard_state(self.run, step)
            raise failure or RetryableError(others[0])
