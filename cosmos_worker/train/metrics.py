"""Reports of a run in progress: log lines, metrics.jsonl, trackers, and a bar on a terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cosmos_worker.runtime.progress import shows_bars
from cosmos_worker.storage.volumes import (
    METRICS_FILE,
    atomic_write,
)
from cosmos_worker.train.time_use import Interval
from cosmos_worker.train.trackers.tracker import Trackers
from cosmos_worker.train.validation import HeldOutLoss

logger = logging.getLogger(__name__)


def format_duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class MetricsLog:
    """Writes one line per interval to the log and to metrics.jsonl, and moves the bar.

    Args:
        run: folder of the run.
        first_step: steps done before; later lines of an interrupted run are dropped.
        max_steps: steps of the run.
        samples_per_step: global batch size.
        trackers: get everything that is written to metrics.jsonl; closed with this.
    """

    def __init__(
        self,
        run: Path,
        first_step: int,
        max_steps: int,
        samples_per_step: int,
        trackers: Trackers | None = None,
    ) -> None:
        self._trackers = trackers or Trackers()
        self.path = run / METRICS_FILE
        self.max_steps = max_steps
        self.samples_per_step = samples_per_step
        self._first_step, self._last_step = first_step, first_step
        self._step_seconds = 0.0
        self._drop_after(first_step)
        self._bar = tqdm(
            total=max_steps,
            initial=first_step,
            unit="step",
            disable=not shows_bars(),
            dynamic_ncols=True,
        )

    def _drop_after(self, step: int) -> None:
        if self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [
                line for line in lines if line and json.loads(line)["step"] <= step and step > 0
            ]
            with atomic_write(self.path, "w") as stream:
                stream.writelines(f"{line}\n" for line in kept)

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
        self._trackers.scalars(record["step"], flatten(record))

    def _say(self, message: str) -> None:
        if self._bar.disable:
            logger.info(message)

    def step(
        self,
        step: int,
        values: dict[str, float],
        interval: Interval,
        speed: Mapping[str, float],
        by_bucket: Mapping[str, float] | None = None,
    ) -> None:
        """Report means over the steps since the last report.

        Args:
            step: steps done.
            values: loss, edm_loss, mse, learning_rate, grad_norm.
            interval: the time since the last report; seconds per step and the time that is left count steps only.
            speed: further figures of these steps, such as tokens_per_second.
            by_bucket: loss of the steps of each bucket that had one; nothing without buckets.
        """
        seconds = interval.step_seconds / (step - self._last_step)
        self._step_seconds += interval.step_seconds
        eta = self._step_seconds / (step - self._first_step) * (self.max_steps - step)
        self._last_step = step
        rate = self.samples_per_step / max(seconds, 1e-9)
        figures = {**speed, **interval.shares()}
        record: dict[str, Any] = {
            "step": step,
            **_rounded(values),
            "seconds_per_step": round(seconds, 4),
            "samples_per_second": round(rate, 3),
            **figures,
        }
        if by_bucket:
            record["loss_by_bucket"] = _rounded(by_bucket)
        self._append(record)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(f"loss={values['loss']:.4f} {rate:.1f} samples/s")
        shown = "".join(f" bucket_{name}={value:.4f}" for name, value in (by_bucket or {}).items())
        shown += "".join(f" {name}={value:g}" for name, value in figures.items())
        self._say(
            f"step={step}/{self.max_steps} loss={values['loss']:.4f} lr={values['learning_rate']:.2e} "
            f"grad_norm={values['grad_norm']:.3f} s/step={seconds:.3f} samples/s={rate:.2f} "
            f"eta={format_duration(eta)}{shown}"
        )

    def validation(self, step: int, found: HeldOutLoss) -> None:
        """Report held-out losses; those at noise levels in the order of the option."""
        found = found.rounded()
        record: dict[str, Any] = {"step": step, "validation_loss": found.loss}
        of_average = ""
        if found.of_average is not None:
            record["validation_loss_ema"] = found.of_average
            of_average = f" validation_loss_ema={found.of_average:.4f}"
        levels = {f"{sigma:g}": value for sigma, value in found.by_sigma.items()}
        if levels:
            record["validation_loss_by_sigma"] = levels
        self._append(record)
        shown = of_average + "".join(
            f" sigma_{sigma}={value:.4f}" for sigma, value in levels.items()
        )
        if self._bar.disable:
            self._say(f"step={step}/{self.max_steps} validation_loss={found.loss:.4f}{shown}")
        else:
            self._bar.write(f"step {step}: held-out loss {found.loss:.4f}{shown}", file=sys.stderr)

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """Report sample videos by name."""
        for path in list(paths.values())[:1]:
            self._say(f"samples step={step} videos={len(paths)} folder={path.parent}")
        self._trackers.videos(step, paths)

    def close(self) -> None:
        """Finish the bar and the trackers."""
        self._bar.close()
        self._trackers.close()


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def flatten(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a record without its step; those of inner mappings are named ``outer/inner``."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": number for inner, number in flatten(value).items()}
        elif name != "step":
            flat[name] = float(value)
    return flat
