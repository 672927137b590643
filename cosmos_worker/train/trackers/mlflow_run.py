"""A run at an MLflow server, or in what else MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import samples_name
from cosmos_worker.train.trackers.tracker import remembered_id
from cosmos_worker.train.trackers.wandb_run import run_title

ADDRESS_VARIABLE = "MLFLOW_TRACKING_URI"
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""A server that does not answer keeps a training waiting no longer than a minute, unless the environment says so."""


class MlflowRun:
    """Figures as metrics, the experiment and sample videos as artifacts."""

    name = "mlflow"

    def __init__(self, run: Path, first_step: int, experiment: Experiment) -> None:
        """Open or continue the run.

        Raises:
            ConfigError: no address.
        """
        address = os.environ.get(ADDRESS_VARIABLE)
        if not address:
            raise ConfigError(
                f"trainer.trackers: mlflow needs an address; set {ADDRESS_VARIABLE} (on a cluster: secrets.mlflow of "
                "the chart), or leave mlflow out"
            )
        for variable, value in PATIENCE.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=address)
        self._id = remembered_id(run, self.name, lambda: self._create(run, experiment))
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, run: Path, experiment: Experiment) -> str:
        title = f"{experiment.project}/{experiment.group}"
        found = self._client.get_experiment_by_name(title)
        group = found.experiment_id if found else self._client.create_experiment(title)
        made: str = self._client.create_run(group, run_name=run_title(run)).info.run_id
        self._client.log_dict(made, experiment.model_dump(mode="json"), "experiment.yaml")
        return made

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def videos(self, step: int, paths: Mapping[str, Path]) -> None:
        """See ``Tracker``."""
        for path in paths.values():
            self._client.log_artifact(self._id, str(path), f"samples/{samples_name(step)}")

    def close(self) -> None:
        """See ``Tracker``."""
        self._client.set_terminated(self._id)
