"""How far the weights of a complete checkpoint are from the base, measured beside the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.model.lora import merge_lora
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.weights.adapter import Adapter
from cosmos_worker.weights.weight_change import (
    describe_change,
    is_unchanged,
    measure_changes,
    read_change,
    write_change,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exports:
    """Whole weights on the CPU of the main process, which nothing changes; average: None = no EMA.

    adapters: of LoRA, by reg and ema; lora_scales: of the corrections in the weights, which are merged when written;
    frozen: names of weights that are not trained, and so are those of the base.
    """

    regular: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    lora_scales: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()


class ChangeMeter:
    """Measures one checkpoint at a time, of the main process, once this is complete.

    Reading the base may take minutes, so nothing is measured while a training stops; a failure is told, no error.

    Args:
        run: folder of the run, in which the changes are written.
        open_base: opens the weights that the training began with; None = they were drawn, so nothing is measured.
    """

    def __init__(self, run: Path, open_base: Callable[[], Mapping[str, Tensor]] | None) -> None:
        self.run = run
        self._open_base = open_base
        # of its own: the next checkpoint does not queue behind it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="change")
        self._pending: Future[None] | None = None
        self._begun_step = -1
        self._stop = StopSignal()
        self._is_dropped = False

    @contextmanager
    def until_stopped(self, stop: StopSignal) -> Iterator[None]:
        """Inside, what is measured is dropped as soon as the training is asked to stop, and when it fails."""
        self._stop = stop
        try:
            yield
        except BaseException:
            self.drop()
            raise
        finally:
            self._stop = StopSignal()

    def drop(self) -> None:
        """Measure nothing any more; what is being measured ends at its next tensor."""
        self._is_dropped = True

    def _is_stopping(self) -> bool:
        return self._is_dropped or self._stop.requested

    def begin(self, step: int, exports: Exports) -> None:
        """Begin to measure the weights of a step, whose checkpoint is complete."""
        self.wait()
        if self._open_base is None or self._is_stopping():
            return
        self._begun_step = step
        self._pending = self._thread.submit(self._measure, self._open_base, step, exports)

    def wait(self) -> None:
        """Until nothing is being measured, so that its weights are given back."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def lacks(self, step: int) -> bool:
        """Whether the change of a step could be measured and was not, such as when the training was stopped then."""
        if self._open_base is None or self._begun_step == step:
            return False
        return not read_change(self.run, step)

    def _measure(
        self, open_base: Callable[[], Mapping[str, Tensor]], step: int, exports: Exports
    ) -> None:
        try:
            changes = self._changes_of(open_base, exports)
            if changes is not None:
                write_change(self.run, step, changes)
        except (
            Exception
        ) as error:  # whatever a base that is gone or damaged raises: no reason to end a training
            text = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning("change of the weights at step %d is not known: %s", step, text)
            return
        if changes is None:
            self._begun_step = -1
            logger.info("change of the weights at step %d is not measured: stopping", step)
            return
        for weights, change in changes.items():
            logger.info("change step=%d weights=%s: %s", step, weights, describe_change(change))
        if is_unchanged(changes):
            logger.warning(
                "step %d: the network equals the one that the training began with: nothing was trained; look at "
                "optimizer.learning_rate, its warm-up, and the logged grad_norm", step
            )  # fmt: skip

    def _changes_of(
        self, open_base: Callable[[], Mapping[str, Tensor]], exports: Exports
    ) -> dict[str, dict[str, float]] | None:
        scales, average = exports.lora_scales, exports.average
        weights: dict[str, Mapping[str, Tensor]] = {"reg": merge_lora(exports.regular, scales)}
        if average is not None:
            weights["ema"] = merge_lora(average, scales)
        held: dict[str, torch.dtype] = {name: one.dtype for name, one in exports.regular.items()}
        return measure_changes(weights, open_base(), held, exports.frozen, self._is_stopping)
