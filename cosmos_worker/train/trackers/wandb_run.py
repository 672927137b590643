"""A run at Weights & Biases, or on this disk with WANDB_MODE=offline."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.errors import ConfigError
from cosmos_worker.train.trackers.tracker import remembered_id

FINISH_SECONDS = 30
"""How long the end of a training waits for what is not sent yet; it stays on disk, where ``wandb sync`` finds it."""


class WandbRun:
    """Figures over the run's own steps, which may be told twice by a continued run; sample videos as MP4."""

    name = "wandb"

    def __init__(self, run: Path, first_step: int, experiment: Experiment) -> None:
        """Open or continue the run; credentials are WANDB_API_KEY, or what ``wandb login`` has left.

        Raises:
            ConfigError: no or wrong credentials.
        """
        import wandb

        try:
            self._run = wandb.init(
                project=experiment.project,
                group=experiment.group,
                name=run_title(run),
                id=remembered_id(run, self.name, lambda: secrets.token_hex(8)),
                resume="allow",
                dir=str(run),
                config=experiment.model_dump(mode="json"),
                settings=wandb.Settings(console="off", finish_timeout=FINISH_SECONDS),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
            raise ConfigError(
                f"trainer.trackers: wandb refuses ({' '.join(str(error).split())[:160]}); set WANDB_API_KEY (on a "
                "cluster: secrets.wandb of the chart), set WANDB_MODE=offline, or leave wandb out"
            ) from None
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.log({"step": step, **values})

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """See ``Tracker``."""
        import wandb

        videos = {
            f"samples/{name}": wandb.Video(str(path), format="mp4") for name, path in paths.items()
        }
        self._run.log({"step": step, **videos})

    def close(self) -> None:
        """See ``Tracker``."""
        self._run.finish()


def run_title(run: Path) -> str:
    """OUTPUT_ROOT/NAME of a run's folder: the first tells jobs apart."""
    return f"{run.parents[2].name}/{run.name}"
