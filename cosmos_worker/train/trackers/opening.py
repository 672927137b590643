"""Opens the trackers of a run: what was asked for and cannot be had is an error before training begins."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import TrackerName
from cosmos_worker.errors import ConfigError, RetryableError
from cosmos_worker.train.trackers.mlflow_run import MlflowRun
from cosmos_worker.train.trackers.tensorboard_files import TensorboardFiles
from cosmos_worker.train.trackers.tracker import (
    Tracker,
    Trackers,
)
from cosmos_worker.train.trackers.wandb_run import WandbRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """How to open a tracker: (run, steps done, experiment) → tracker; the package and the extra that it needs."""

    package: str
    extra: str
    open: Callable[[Path, int, Experiment], Tracker]


KINDS: dict[TrackerName, Kind] = {
    "tensorboard": Kind("tensorboardX", "worker", TensorboardFiles),
    "wandb": Kind("wandb", "wandb", WandbRun),
    "mlflow": Kind("mlflow", "mlflow", MlflowRun),
}


def _is_installed(kind: Kind) -> bool:
    return importlib.util.find_spec(kind.package) is not None


def choose_trackers(wanted: tuple[TrackerName, ...] | None) -> tuple[TrackerName, ...]:
    """The trackers to open, every process alike.

    Args:
        wanted: ``trainer.trackers``; None = tensorboard, where it is installed.

    Raises:
        ConfigError: one that was asked for is not installed.
    """
    if wanted is None:
        if _is_installed(KINDS["tensorboard"]):
            return ("tensorboard",)
        logger.info("tensorboardX is not installed: figures are in metrics.jsonl only")
        return ()
    for name in wanted:
        kind = KINDS[name]
        if not _is_installed(kind):
            raise ConfigError(
                f"trainer.trackers: {name} needs the package {kind.package}, which is not installed; install "
                f"cosmos-post-training[{kind.extra}], use an image that has it, or leave {name} out"
            )
    return wanted


def open_trackers(
    names: tuple[TrackerName, ...], run: Path, first_step: int, experiment: Experiment
) -> Trackers:
    """Open the trackers; the main process calls this.

    Args:
        names: of :func:`choose_trackers`.
        run: folder of the run, which a continued run shares with its earlier attempts.
        first_step: steps done.
        experiment: is told to them.

    Raises:
        ConfigError: credentials or an address are missing.
        RetryableError: one cannot be reached, and nothing is trained yet; a continued run goes on without it.
    """
    opened: list[Tracker] = []
    for name in names:
        try:
            opened.append(KINDS[name].open(run, first_step, experiment))
        except ConfigError:
            raise
        except Exception as error:  # each service has errors of its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if experiment.trainer.trackers and first_step == 0:
                raise RetryableError(
                    f"trainer.trackers: {name} cannot be opened ({reason}); try again, or leave it out"
                ) from error
            logger.warning("tracker=%s cannot be opened and is off (%s)", name, reason)
    return Trackers(opened)
