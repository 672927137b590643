"""fetch-model: model, tokenizer, text encoder and companions into the models volume, checked for completeness."""

from __future__ import annotations

import logging
from typing import Any

from cosmos_worker.checkpoint.verify import verify_files
from cosmos_worker.config import FetchModelConfig
from cosmos_worker.data.artifacts import fetch_artifact
from cosmos_worker.layout import Volumes

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
