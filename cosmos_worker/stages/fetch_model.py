"""fetch-model: model, tokenizer, text encoder and companions into the models volume, checked for completeness."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.stages.verify_files import verify_files
from cosmos_worker.storage.file_digests import check_recorded
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.weights.fetch import fetch_artifact

logger = logging.getLogger(__name__)


def run(config: FetchModelConfig, volumes: Volumes) -> dict[str, Any]:
    """Fetch all artifacts.

    Returns:
        ``artifacts``: for each its ``name``, ``kind``, ``folder``, ``commit`` of its repository (None for other
        sources) and ``files``: file name → ``size_bytes`` and ``sha256``.

    Raises:
        DataError: an artifact lacks files, or a target holds others.
        CheckpointError: damaged files, or weights that are no finite floating-point numbers.
        RetryableError: the network fails.
    """
    artifacts = []
    for artifact in config.artifacts:
        logger.info("fetching artifact=%s kind=%s", artifact.name, artifact.kind)
        fetched = fetch_artifact(artifact, volumes, verify_files)
        artifacts.append(
            {
                "name": artifact.name,
                "kind": artifact.kind,
                "folder": artifact.target_uri,
                "commit": fetched.commit,
                "files": fetched.files,
            }
        )
    return {"artifacts": artifacts}


def find_lacking(
    config: FetchModelConfig, volumes: Volumes, result: Mapping[str, Any]
) -> Path | None:
    """A file that an earlier run fetched and that is no longer there; None if all are.

    Args:
        config: of the stage.
        volumes: where its targets are.
        result: of that run.

    Raises:
        CheckpointError: one is not the file that was fetched.
    """
    for artifact, found in zip(config.artifacts, result["artifacts"], strict=True):
        for name in found["files"]:
            path = volumes.resolve(artifact.target_uri) / name
            if not path.is_file():
                return path
            check_recorded(path)
    return None
