"""The result of fetch-model for a file or folder of weights."""

from __future__ import annotations

from pathlib import Path

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.stages import fetch_model
from cosmos_worker.storage.volumes import Volumes


def fetch(source: Path, target: Path) -> Path:
    """The folder that fetch-model makes of a file or folder."""
    artifact = {
        "kind": "model",
        "name": "Tiny",
        "source": {"path": str(source)},
        "target_uri": str(target),
    }
    config = {"key": "k", "target_uri": str(target.parent), "artifacts": [artifact]}
    fetch_model.run(FetchModelConfig.model_validate(config), Volumes())
    return target
