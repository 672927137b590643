"""Measures the change of a complete checkpoint's weights against the base, in a thread beside the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from cosmos_worker.model.lora import merge_lora
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.weights.adapter import Adapter
from cosmos_worker.weights.tensors import describe
from cosmos_worker.weights.weight_change import (
    NOTHING_TRAINED,
    describe_change,
    is_unchanged,
    measure_changes,
    read_change,
    write_change,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exports:
    """Whole weights for the main process, which the training does not change; read when they are asked for.

    Attributes:
        regular: weights by name.
        average: averaged weights by name; None = no EMA.
        adapters: of LoRA, by kind (reg, ema).
        lora_scales: factor of each layer's LoRA correction, by layer; corrections are merged when they are written.
        frozen: names of weights that are not trained, and so are equal to those of the base.
    """

    regular: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    lora_scales: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()


Compose = Callable[[Path], Exports]
"""The whole weights of a checkpoint from the folder of its shards."""


class ChangeMeter:
    """Measures one complete checkpoint at a time, on the main process.

    Reading the base may take minutes, so nothing is measured while a training stops. A failure is logged as a warning.

    Args:
        run: folder of the run, where the changes are written.
        open_base: opens the weights that the training began with; None = they were drawn: nothing is measured.
    """

    def __init__(self, run: Path, open_base: Callable[[], Mapping[str, Tensor]] | None) -> None:
        self.run = run
        self._open_base = open_base
        # a thread of its own: the next checkpoint does not queue behind it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="change")
        self._pending: Future[None] | None = None
        self._begun_step = -1
        self._stop = StopSignal()
        self._is_dropped = False

    @contextmanager
    def until_stopped(self, stop: StopSignal) -> Iterator[None]:
        """Inside, a measurement is dropped as soon as the training is asked to stop, or fails."""
        self._stop = stop
        try:
            yield
        except BaseException:
            self.drop()
            raise
        finally:
            self._stop = StopSignal()

    def drop(self) -> None:
        """Measure nothing from now on; a measurement in progress ends at its next tensor."""
        self._is_dropped = True

    def _is_stopping(self) -> bool:
        return self._is_dropped or self._stop.requested

    def begin(self, step: int, open_weights: Callable[[], Exports]) -> None:
        """Begin to measure the weights of a step whose checkpoint is complete, and stays until this is done.

        Args:
            step: optimizer steps done.
            open_weights: opens the weights; called in the thread that measures.
        """
        self.wait()
        if self._open_base is None or self._is_stopping():
            return
        self._begun_step = step
        self._pending = self._thread.submit(self._measure, self._open_base, step, open_weights)

    def wait(self) -> None:
        """Wait for the measurement in progress, which reads the checkpoint that it measures."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def lacks(self, step: int) -> bool:
        """True if the change of a step can be measured but was not, because the training was stopped at that step."""
        if self._open_base is None or self._begun_step == step:
            return False
        return not read_change(self.run, step)

    def _measure(
        self,
        open_base: Callable[[], Mapping[str, Tensor]],
        step: int,
        open_weights: Callable[[], Exports],
    ) -> None:
        try:
            changes = self._changes_of(open_base, open_weights())
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
            logger.warning(NOTHING_TRAINED, step)

    def _changes_of(
        self, open_base: Callable[[], Mapping[str, Tensor]], exports: Exports
    ) -> dict[str, dict[str, float]] | None:
        scales, average = exports.lora_scales, exports.average
        weights: dict[str, Mapping[str, Tensor]] = {"reg": merge_lora(exports.regular, scales)}
        if average is not None:
            weights["ema"] = merge_lora(average, scales)
        dtypes = {name: describe(exports.regular, name).dtype for name in exports.regular}
        return measure_changes(weights, open_base(), dtypes, exports.frozen, self._is_stopping)
